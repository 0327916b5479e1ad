"""One child process of an engine: start it, wait until it serves, keep its last words, end it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import deque

import psutil

from peft_core import processes
from peft_core.errors import EngineFailed
from peft_daemon.engines.supervised_child import PARENT_VARIABLE

STDERR_LINES = 40
LINE_LIMIT = 1 << 20
"""Longest line in bytes that a child may write."""
LOOK_S = 1.0
"""How often a child that is starting is looked at: one that is stopped says nothing and does not end."""
STOPPED_LOOKS = 3
"""So often in a row it has to be found stopped."""
LAST_WORDS_S = 1.0
"""How long what a dead child has left in its pipes is waited for; what it started may hold them open."""


class ChildGone(Exception):
    """The connection to the child broke: its process is dying or dead, or nothing can be opened any more."""


class EngineProcess:
    """A running child that speaks first (one line on stdout) and lives until its stdin closes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self._reader = asyncio.create_task(self._collect_stderr())

    @classmethod
    async def spawn(cls, module: str, first_line: bytes) -> EngineProcess:
        """Start ``python -m module`` and give it its configuration.

        Secrets travel on stdin: a command line or an environment can be read by others.
        """
        process = await processes.start_async(
            processes.python_module(module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
            environ={
                **os.environ,
                **{"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", PARENT_VARIABLE: str(os.getpid())},
            },
            # Ctrl-C in a terminal goes to the daemon alone, which then ends the child in order.
            start_new_session=sys.platform != "win32",
        )
        try:
            self = cls(process)
            assert process.stdin is not None  # noqa: S101  (PIPE was asked for)
            with contextlib.suppress(ConnectionError):
                process.stdin.write(first_line + b"\n")
                await process.stdin.drain()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise
        return self

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def last_words(self) -> str:
        """The end of what the child wrote to stderr."""
        return " | ".join(list(self._stderr)[-4:])

    def memory_bytes(self) -> int:
        """Resident memory now; 0 once it has ended, or where it cannot be had."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except (psutil.Error, OSError):
            return 0

    def stopped(self) -> bool:
        """Whether a signal has stopped it: it lives and does nothing until another one lets it go on."""
        try:
            return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        except (psutil.Error, OSError):
            return False

    async def first_answer(self, timeout_s: float) -> bytes:
        """The line that says it serves; raises EngineFailed with the child's last words if it dies or hangs."""
        assert self._process.stdout is not None  # noqa: S101  (PIPE was asked for)
        reading = asyncio.ensure_future(self._process.stdout.readline())
        try:
            await self._until_answer(reading, timeout_s)
            line = reading.result()
        except ValueError:
            raise EngineFailed("the engine answered nonsense", why="a line without an end") from None
        finally:
            reading.cancel()
        if not line:
            code = await self._process.wait()
            await self._hear_last_words()
            raise EngineFailed(
                "the engine could not load the model",
                why=self.last_words or f"exit code {code}",
                fix="Run `peft-daemon doctor`",
            )
        return line

    def send(self, line: bytes) -> None:
        """Write one line to its stdin; raises ChildGone when that is closed."""
        stdin = self._process.stdin
        if stdin is None or stdin.is_closing():
            raise ChildGone
        stdin.write(line + b"\n")

    async def receive(self) -> bytes:
        """The next line it writes to its stdout; raises ChildGone when it has ended."""
        assert self._process.stdout is not None  # noqa: S101  (PIPE was asked for)
        with contextlib.suppress(ConnectionError):
            if line := await self._process.stdout.readline():
                return line
        raise ChildGone

    async def wait(self) -> int:
        """Wait for its end; the exit code (negative: the signal)."""
        return await self._process.wait()

    async def stop(self, grace_s: float = 2.0) -> None:
        """Close its stdin, which ends it; kill it if that does not help. Safe to call twice."""
        if self._process.stdin is not None:
            with contextlib.suppress(ConnectionError, OSError):
                self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 0.0 if self.stopped() else grace_s)
        except TimeoutError:
            self.kill()
            await self._process.wait()
        except BaseException:
            self.kill()
            raise
        await self._hear_last_words()

    def kill(self) -> None:
        """End it at once, also when it is stopped; returns without waiting."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _until_answer(self, reading: asyncio.Future[bytes], timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        deadline, stopped = loop.time() + timeout_s, 0
        while True:
            left = deadline - loop.time()
            await asyncio.wait((reading,), timeout=max(0.0, min(LOOK_S, left)))
            if reading.done():
                return
            if left <= 0:
                raise EngineFailed(
                    f"the engine did not start within {timeout_s:.0f} s",
                    why=self.last_words,
                    fix="Run `peft-daemon doctor`",
                )
            stopped = stopped + 1 if self.stopped() else 0
            if stopped >= STOPPED_LOOKS:
                raise EngineFailed(
                    "the engine hung while it started",
                    why="a signal stopped its process",
                    fix="It is ended and starts again by itself",
                )

    async def _hear_last_words(self) -> None:
        await asyncio.wait((self._reader,), timeout=LAST_WORDS_S)

    async def _collect_stderr(self) -> None:
        assert self._process.stderr is not None  # noqa: S101  (PIPE was asked for)
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:  # a line longer than the reader's buffer is no message
                continue
            if not line:
                return
            if text := line.decode(errors="replace").strip():
                self._stderr.append(text)
