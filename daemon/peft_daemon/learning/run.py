"""One tuning run as a child process of the daemon: at lowest priority, stopped and continued by signals.

The daemon must not import tuning, so it runs the command line and reads its events. A stopped process takes no time of
the processor from the moment of the signal, wherever it was; nothing has to be asked of it. It dies with the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import msgspec
import psutil

from peft_core import processes
from peft_core.child_main import PARENT_VARIABLE
from peft_core.paths import Paths
from peft_core.process_identity import kill_tree
from peft_core.settings import ENV_PREFIX, Settings
from peft_core.status_types import LearningActivity
from peft_core.wire_errors import ErrorBody, ErrorResponse
from peft_daemon.learning.conditions import RunNeeds, Verb
from peft_daemon.learning.state import PendingRun, RepositoryState

LOWEST_NICENESS = 19
CHECKPOINT_EVERY = "2m"
MAX_STDERR_LINES = 20
MAX_LINE_BYTES = 1 << 20
MAX_LINES_KEPT = 200
REGISTERING_S = 1.0
"""How long a pause waits for a run that registers its adapter: it holds the registry's lock meanwhile."""
PAUSE_CHECK_S = 0.05
END_WAIT_S = 30.0
"""A run that was asked to end may take a step, which saves a checkpoint; then it is killed."""


class RunProgress(msgspec.Struct, frozen=True):
    """The fields that matter here of an event of ``tune --json``; see ``peft_tuning.events``."""

    type: str
    what: str = ""
    done: int = 0
    of: int = 0
    step: int = 0
    steps: int = 0
    memory_bytes: int = 0

    @property
    def words(self) -> str:
        """What the run does, in a few words; empty for an event that says nothing of that."""
        match self.type:
            case "loading":
                return f"{self.what} ({self.done} of {self.of})" if self.of else self.what
            case "step" | "started":
                return f"step {self.step} of {self.steps}"
            case "done" | "verdict":
                return "judging"
        return ""


class HoleFigures(msgspec.Struct, frozen=True):
    """Averages over the gate's holes."""

    holes: int
    exact: float
    nats: float


class Verdict(msgspec.Struct, frozen=True):
    """The gate's verdict, as ``tune --json`` tells it."""

    reason: str
    opponent: str
    served: HoleFigures
    adapter: HoleFigures

    @property
    def figures(self) -> dict[str, float]:
        """The figures for the log."""
        return {
            "holes": float(self.adapter.holes),
            "exact_before": self.served.exact,
            "exact": self.adapter.exact,
            "nats_before": self.served.nats,
            "nats": self.adapter.nats,
        }


class Registered(msgspec.Struct, frozen=True):
    """The last event of a run."""

    name: str
    digest: str
    in_use: list[str]
    why_not: str = ""
    unlearned: int = 0


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """How a run's process ended."""

    code: int
    """Its exit code; negative for the signal that ended it."""
    registered: Registered | None
    verdict: Verdict | None
    error: ErrorBody | None
    stderr: str
    peak_bytes: int

    @property
    def why(self) -> str:
        """Why it did not come to its end, in one line."""
        if self.error is not None:
            cause = f"{self.error.what}: {self.error.why}" if self.error.why else self.error.what
            return f"{cause}. {self.error.fix}" if self.error.fix else cause
        if self.code < 0:
            return f"its process was ended by signal {-self.code}"
        return self.stderr or f"exit code {self.code}"


def tune_command(root: str, name: str, *, budget_s: float, resume: bool) -> tuple[str, ...]:
    """Return the command line of a run."""
    return processes.python_module(
        "peft_daemon",
        *("tune", "--repo", root, "--name", name, "--budget", f"{budget_s:.0f}s", "--update", "--json"),
        *("--nice", str(LOWEST_NICENESS), "--checkpoint-every", CHECKPOINT_EVERY),
        *(("--resume",) if resume else ()),
    )


def run_environment(settings: Settings, paths: Paths, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which a run has exactly the daemon's settings and folders."""
    kept = {name: value for name, value in environ.items() if not _is_setting(name)}
    values = {
        ENV_PREFIX + name.upper(): str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in msgspec.structs.asdict(settings).items()
    }
    home = paths.config.parent
    if Paths.from_environment({"PEFT_DAEMON_HOME": str(home)}) == paths:
        values["PEFT_DAEMON_HOME"] = str(home)
    return {**kept, **values, "PYTHONUNBUFFERED": "1", PARENT_VARIABLE: str(os.getpid())}


def _is_setting(variable: str) -> bool:
    return variable.removeprefix(ENV_PREFIX).lower() in Settings.__struct_fields__ and variable.startswith(ENV_PREFIX)


class TuningRun:
    """A run's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stderr: deque[str] = deque(maxlen=MAX_STDERR_LINES)
        self._rest: deque[str] = deque(maxlen=MAX_LINES_KEPT)
        self._readers = (
            asyncio.create_task(self._read_events()),
            asyncio.create_task(self._read_stderr()),
        )
        self._registering = False
        self._pausing: asyncio.TimerHandle | None = None
        self._verdict: Verdict | None = None
        self._registered: Registered | None = None
        self._peak_bytes = 0
        self.progress = RunProgress("loading", "starting")
        """The last event that says what it does."""
        self.paused = False

    @classmethod
    async def start(cls, command: Sequence[str], environ: Mapping[str, str]) -> Self:
        """Start a run at the lowest priority that the system has. Raises OSError."""
        process = await processes.start_async(
            command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MAX_LINE_BYTES,
            environ=environ,
            # A group of its own, which signals reach as a whole.
            start_new_session=sys.platform != "win32",
        )
        lower_priority(process.pid)
        return cls(process)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def pause(self) -> None:
        """Stop its process now, or a moment later if it registers its adapter."""
        if self.paused:
            return
        self.paused = True
        if self._registering:
            self._pausing = asyncio.get_running_loop().call_later(REGISTERING_S, self._suspend)
        else:
            self._suspend()

    def resume(self) -> None:
        """Let its process continue."""
        if self._pausing is not None:
            self._pausing.cancel()
            self._pausing = None
        if self.paused:
            self.paused = False
            self._signal_all("SIGCONT")

    def end(self) -> None:
        """Ask it to end after the present step with a checkpoint; returns without waiting."""
        self.resume()
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """End it at once, if it has not ended; returns without waiting."""
        if self._process.returncode is not None:
            return
        with contextlib.suppress(psutil.Error):
            kill_tree(psutil.Process(self.pid))

    async def end_within(self, seconds: float) -> None:
        """Ask it to end, wait, and kill it if it is still there."""
        self.end()
        try:
            await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            self.kill()
            await self._process.wait()

    async def wait(self) -> RunEnd:
        """Wait until it has ended and all that it told is read."""
        code = await self._process.wait()
        await asyncio.wait(self._readers, timeout=REGISTERING_S)
        for reader in self._readers:
            reader.cancel()
        return RunEnd(
            code=code,
            registered=self._registered,
            verdict=self._verdict,
            error=_decode_failure("\n".join(self._rest)),
            stderr=" | ".join(list(self._stderr)[-3:]),
            peak_bytes=self._peak_bytes,
        )

    def _suspend(self) -> None:
        self._pausing = None
        self._signal_all("SIGSTOP")

    def _signal_all(self, name: str) -> None:
        """Signal its process group; where there are no such signals, suspend or resume its processes."""
        if sys.platform != "win32":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, getattr(signal, name))
            return
        with contextlib.suppress(psutil.Error):
            this = psutil.Process(self.pid)
            for each in (this, *this.children(recursive=True)):
                each.suspend() if name == "SIGSTOP" else each.resume()

    async def _read_events(self) -> None:
        assert self._process.stdout is not None  # noqa: S101  (PIPE was asked for)
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # a line longer than the reader's buffer is none of ours
                continue
            if not line:
                return
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            event = msgspec.json.decode(line, type=RunProgress)
            if event.type == "verdict":
                self._verdict = msgspec.json.decode(line, type=Verdict)
                self._registering = True
            elif event.type == "registered":
                self._registered = msgspec.json.decode(line, type=Registered)
        except ValueError:
            self._rest.append(line.decode(errors="replace").rstrip("\n"))
            return
        self._peak_bytes = max(self._peak_bytes, event.memory_bytes)
        if event.words:
            self.progress = event

    async def _read_stderr(self) -> None:
        assert self._process.stderr is not None  # noqa: S101  (PIPE was asked for)
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:
                continue
            if not line:
                return
            if text := line.decode(errors="replace").strip():
                self._stderr.append(text)


class CurrentRun:
    """The run that is under way, and how long it really ran."""

    def __init__(
        self,
        state: RepositoryState,
        run: TuningRun,
        pending: PendingRun,
        needs: RunNeeds,
        *,
        resumed: bool,
        limit_s: float,
    ) -> None:
        self.root, self.name = state.root, state.adapter
        self.run, self.pending, self.needs, self.resumed = run, pending, needs, resumed
        self.limit_s = limit_s
        """Seconds of today that it may take."""
        self.ending = ""
        """Why it was asked to end, or killed."""
        self.wait_s = 0.0
        """After its end, how long it must not be tried again."""
        self.why_paused = ""
        self._ran_s = 0.0
        self._turned = time.monotonic()
        """When it was paused or continued last."""

    @property
    def ran_s(self) -> float:
        """Seconds that it ran, without pauses."""
        return self._ran_s + (0.0 if self.run.paused else time.monotonic() - self._turned)

    @property
    def paused_s(self) -> float:
        """Seconds since it was paused; 0 while it runs."""
        return time.monotonic() - self._turned if self.run.paused else 0.0

    def ask(self) -> None:
        """Note that the user wants it now: it waits for completions only, and takes the time that it needs."""
        self.needs, self.limit_s = replace(self.needs, asked=True), math.inf

    def pause(self, why: str) -> bool:
        """Stop it; return whether it ran."""
        if self.run.paused or self.ending:
            return False
        self._ran_s, self._turned, self.why_paused = self.ran_s, time.monotonic(), why
        self.run.pause()
        return True

    def resume(self) -> bool:
        """Let it go on; return whether it was paused."""
        if not self.run.paused:
            return False
        self._turned, self.why_paused = time.monotonic(), ""
        self.run.resume()
        return True

    def end(self, verb: Verb, why: str) -> None:
        """Ask it to end with a checkpoint, or kill it; also if it is paused, as it would take a step to save one."""
        if self.ending:
            return
        self.ending = why
        if verb is Verb.KILL or self.run.paused:
            self.run.kill()
        else:
            self.run.end()
            asyncio.get_running_loop().call_later(END_WAIT_S, self.run.kill)

    @property
    def activity(self) -> LearningActivity:
        """Whether it runs or is paused."""
        return LearningActivity.PAUSED if self.run.paused else LearningActivity.RUNNING

    @property
    def line(self) -> str:
        """What it does, in one line."""
        doing = self.run.progress.words
        paused = f", paused ({self.why_paused})" if self.run.paused else ""
        return f"learning {Path(self.root).name}: {doing}{paused}"


def lower_priority(pid: int) -> None:
    """Give a process that has just started the lowest priority for processor and disk that the system has.

    The process leads a session of its own, which gets that priority too.
    """
    with contextlib.suppress(psutil.Error, OSError, AttributeError, ValueError):
        process = psutil.Process(pid)
        if sys.platform == "win32":
            process.nice(psutil.IDLE_PRIORITY_CLASS)
        else:
            process.nice(LOWEST_NICENESS)
        if sys.platform == "linux":
            process.ionice(psutil.IOPRIO_CLASS_IDLE)
    if sys.platform == "linux":
        # It has one thread yet, from which all later ones inherit this.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        # Linux shares the cores among sessions first: without this, the run's own gets as much as the user's.
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text(str(LOWEST_NICENESS), encoding="ascii")


def _decode_failure(text: str) -> ErrorBody | None:
    try:
        return msgspec.json.decode(text, type=ErrorResponse).error
    except ValueError:
        return None
