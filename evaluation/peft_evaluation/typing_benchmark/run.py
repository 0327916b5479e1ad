"""Run the benchmark: make traces, replay each with every policy, compute figures, write the report.

All files are in one folder: ``run.json`` (what is replayed), ``replays.jsonl`` (the results so far, one line for each
policy and trace), and at the end the report. An interrupted run can be continued. The policies take turns on each
trace, so that a machine that is slow for a while is slow for all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random

import msgspec

from peft_core import files
from peft_core.errors import Cancelled, Conflict, InvalidInput
from peft_core.status_types import LLAMACPP
from peft_core.tasks import OnProgress
from peft_evaluation.journal import Journal
from peft_evaluation.typing_benchmark.figures import assemble
from peft_evaluation.typing_benchmark.policies.base import BenchModel, PolicySession
from peft_evaluation.typing_benchmark.policies.catalogue import Policy
from peft_evaluation.typing_benchmark.replay import Replayed, TraceWorkspace, replay
from peft_evaluation.typing_benchmark.report import write_report
from peft_evaluation.typing_benchmark.results import BenchReport
from peft_evaluation.typing_benchmark.scenarios import LOOK_S, cold, reopened, scene_of
from peft_evaluation.typing_benchmark.trace_maker import TraceAmount, code_bases, make_traces
from peft_evaluation.typing_benchmark.traces import Trace, digest_of
from peft_tuning.installation import Installation

RUN, JOURNAL = "run.json", "replays.jsonl"
START_S = 4.0
"""Estimated time for starting and ending a system, for the estimate of the time left."""


class Replaying(msgspec.Struct, frozen=True, kw_only=True, tag="replaying"):
    """Event: progress of a replay."""

    done: int
    """Number of replays done."""
    of: int
    """Number of all replays."""
    what: str
    eta_s: float
    """Estimated seconds left."""


class BenchReported(msgspec.Struct, frozen=True, kw_only=True, tag="reported"):
    """Event: the report was written. It is the last one."""

    folder: str
    report: BenchReport


TypingEvent = Replaying | BenchReported
ReplayKey = tuple[str, str]
"""Name of the policy and id of the trace."""


class BenchIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``run.json``: what has to be the same to continue a run. Policies may be added later."""

    seed: int
    quick: bool
    traces_sha256: str
    model: str
    model_sha256: str


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """The options of a run."""

    folder: Path
    policies: tuple[Policy, ...]
    amount: TraceAmount
    scenes: int
    """Number of files with which the fixed scenes are replayed."""
    quick: bool
    seed: int = 0
    sources: tuple[Path, ...] = ()
    resume: bool = False
    command: str = ""


def bench(request: BenchRequest, installation: Installation, on_progress: OnProgress[TypingEvent]) -> BenchReport:
    """Run the benchmark and write its report.

    Raises Conflict if the folder holds a run and ``resume`` is not set, or if that run has other options; NotFound
    without the model; Cancelled for Ctrl-C; and what a system raises.
    """
    base = installation.base
    if LLAMACPP not in installation.entry.engines:
        raise InvalidInput(
            f"'{base.id}' cannot be measured here",
            why="all policies use llama.cpp, and it is a folder in transformers' layout",
            fix="Set `model` to one in a GGUF file",
        )
    installation.require_intact()
    engine = BenchModel(base.id, base.path, installation.settings.threads)
    traces = make_traces(request.amount, request.seed, request.sources)
    scenes = _scenes(request)
    identity = BenchIdentity(
        seed=request.seed,
        quick=request.quick,
        traces_sha256=digest_of((*traces, *scenes)),
        model=base.id,
        model_sha256=base.sha256,
    )
    _begin(request, identity)
    began = time.monotonic()
    with Journal(request.folder / JOURNAL, Replayed) as journal:
        done = {(each.policy, each.trace): each for each in journal.read()}
        replays = _ReplayQueue(request.policies, (*traces, *scenes), done)

        def keep(each: Replayed) -> None:
            journal.append(each)
            done[each.policy, each.trace] = each

        def open_session(policy: Policy, workspace: TraceWorkspace) -> PolicySession:
            return policy.open(engine, workspace)

        try:
            asyncio.run(replays.run(open_session, keep, on_progress))
        except KeyboardInterrupt:
            raise Cancelled(
                f"interrupted after {len(done)} replays, which are kept",
                fix=f"Continue with the same command and `--resume` and `--output {request.folder}`",
            ) from None
    report = assemble(
        list(done.values()),
        traces,
        scenes,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=request.command,
        seconds=round(time.monotonic() - began, 1),
        seed=request.seed,
        quick=request.quick,
        model=base.id,
        model_sha256=base.sha256,
    )
    write_report(request.folder, report)
    on_progress(BenchReported(folder=str(request.folder), report=report))
    return report


class _ReplayQueue:
    """The replays that are left to do, in order."""

    def __init__(self, policies: Sequence[Policy], traces: Sequence[Trace], done: Mapping[ReplayKey, Replayed]) -> None:
        jobs = [
            (policies[(turn + number) % len(policies)], trace)
            for number, trace in enumerate(traces)
            for turn in range(len(policies))
        ]
        self.left = [(policy, trace) for policy, trace in jobs if (policy.name, trace.id) not in done]
        self._of = len(jobs)

    async def run(
        self,
        open_session: Callable[[Policy, TraceWorkspace], PolicySession],
        keep: Callable[[Replayed], None],
        on_progress: OnProgress[TypingEvent],
    ) -> None:
        """Do all replays, one after the other, and call ``keep`` with each result."""
        while self.left:
            policy, trace = self.left[0]
            keep(await replay(trace, policy.name, partial(open_session, policy), partial(self._report, on_progress)))
            del self.left[0]

    def _report(self, on_progress: OnProgress[TypingEvent], what: str, passed_s: float) -> None:
        left = sum(trace.seconds + START_S for _, trace in self.left) - passed_s
        on_progress(Replaying(done=self._of - len(self.left), of=self._of, what=what, eta_s=max(0.0, left)))


def _scenes(request: BenchRequest) -> tuple[Trace, ...]:
    """Return the traces of the fixed scenes; with ``quick`` only those in which the person looks at the file first."""
    bases = code_bases(request.sources, Random(f"{request.seed} scenes"))  # noqa: S311  (has to be repeatable)
    found = [scene for base in bases if (scene := scene_of(base)) is not None][: request.scenes]
    looks = LOOK_S[-1:] if request.quick else LOOK_S
    return tuple(
        trace for scene in found for trace in (*(cold(scene, look) for look in looks), reopened(scene, LOOK_S[-1]))
    )


def _begin(request: BenchRequest, identity: BenchIdentity) -> None:
    """Write ``run.json``, or check that it is the same as in the run that is continued."""
    path = request.folder / RUN
    if path.exists():
        try:
            before = msgspec.json.decode(path.read_bytes(), type=BenchIdentity)
        except (ValueError, RecursionError) as error:
            raise Conflict(f"cannot read {path}", why=str(error), fix="Start again with another `--name`") from None
        if not request.resume:
            raise Conflict(
                f"{request.folder} holds a run already", fix="Continue it with `--resume`, or give another `--name`"
            )
        if before != identity:
            raise Conflict(
                f"the run in {request.folder} was started with other options",
                why=f"it has {before}, this would have {identity}",
                fix="Use the same options, or start another with `--name`",
            )
        return
    if request.folder.exists() and any(request.folder.iterdir()):
        raise InvalidInput(f"{request.folder} is not empty", fix="Name another folder")
    request.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write_durable(path, msgspec.json.format(msgspec.json.encode(identity), indent=2))
