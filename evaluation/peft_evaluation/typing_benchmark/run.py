"""A run of the benchmark: traces, every policy on each, figures, report. Goes on where it was interrupted.

Everything lies in one folder: ``run.json`` (what is replayed), ``replays.jsonl`` (what was, one line for each policy
and trace), then the report. Policies take turns on each trace: a machine that is slower for a while is so for all.
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
"""What starting and ending a system takes; for the first estimate of the time left."""


class Replaying(msgspec.Struct, frozen=True, kw_only=True, tag="replaying"):
    """A replay goes on."""

    done: int
    """Replays that are over ..."""
    of: int
    """... of so many."""
    what: str
    eta_s: float


class BenchReported(msgspec.Struct, frozen=True, kw_only=True, tag="reported"):
    """The end: the report is written."""

    folder: str
    report: BenchReport


TypingEvent = Replaying | BenchReported
ReplayKey = tuple[str, str]
"""Of a replay: its policy and its trace."""


class BenchIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """``run.json``: what decides what is replayed. Policies may be added later."""

    seed: int
    quick: bool
    traces_sha256: str
    model: str
    model_sha256: str


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """What the user asked for."""

    folder: Path
    policies: tuple[Policy, ...]
    amount: TraceAmount
    scenes: int
    """Files of which the fixed scenes are played."""
    quick: bool
    seed: int = 0
    sources: tuple[Path, ...] = ()
    resume: bool = False
    command: str = ""


def bench(request: BenchRequest, installation: Installation, on_progress: OnProgress[TypingEvent]) -> BenchReport:
    """Run the benchmark and write its report.

    Raises Conflict where the folder holds a run that is not to go on, or another one; NotFound without the model;
    Cancelled when interrupted; and what a system raises that cannot be started.
    """
    base = installation.base
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
        replays = _ReplayJournal(request.policies, (*traces, *scenes), done)

        def ended(each: Replayed) -> None:
            journal.append(each)
            done[each.policy, each.trace] = each

        def opened(policy: Policy, workspace: TraceWorkspace) -> PolicySession:
            return policy.open(engine, workspace)

        try:
            asyncio.run(replays.run(opened, ended, on_progress))
        except KeyboardInterrupt:
            raise Cancelled(
                f"interrupted after {len(done)} replays, which are kept",
                fix=f"Go on with the same command and `--resume` and `--output {request.folder}`",
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


class _ReplayJournal:
    """What is to be replayed, and how far it is."""

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
        opened: Callable[[Policy, TraceWorkspace], PolicySession],
        ended: Callable[[Replayed], None],
        on_progress: OnProgress[TypingEvent],
    ) -> None:
        """One after the other."""
        while self.left:
            policy, trace = self.left[0]
            ended(await replay(trace, policy.name, partial(opened, policy), partial(self._report, on_progress)))
            del self.left[0]

    def _report(self, on_progress: OnProgress[TypingEvent], what: str, over: float) -> None:
        left = sum(trace.seconds + START_S for _, trace in self.left) - over
        on_progress(Replaying(done=self._of - len(self.left), of=self._of, what=what, eta_s=max(0.0, left)))


def _scenes(request: BenchRequest) -> tuple[Trace, ...]:
    """The fixed scenes; with ``quick`` those in which the person looks at the file first."""
    bases = code_bases(request.sources, Random(f"{request.seed} scenes"))  # noqa: S311  (has to be repeatable)
    found = [scene for base in bases if (scene := scene_of(base)) is not None][: request.scenes]
    looks = LOOK_S[-1:] if request.quick else LOOK_S
    return tuple(
        trace for scene in found for trace in (*(cold(scene, look) for look in looks), reopened(scene, LOOK_S[-1]))
    )


def _begin(request: BenchRequest, identity: BenchIdentity) -> None:
    """Write down what is replayed, or check that it is what was begun."""
    path = request.folder / RUN
    if path.exists():
        try:
            before = msgspec.json.decode(path.read_bytes(), type=BenchIdentity)
        except (ValueError, RecursionError) as error:
            raise Conflict(f"cannot read {path}", why=str(error), fix="Begin anew under another `--name`") from None
        if not request.resume:
            raise Conflict(
                f"{request.folder} holds a run already", fix="Go on with `--resume`, or give another `--name`"
            )
        if before != identity:
            raise Conflict(
                f"the run in {request.folder} was begun otherwise",
                why=f"it has {before}, this would have {identity}",
                fix="Go on with its own options, or begin another with `--name`",
            )
        return
    if request.folder.exists() and any(request.folder.iterdir()):
        raise InvalidInput(f"{request.folder} is not empty", fix="Name another folder")
    request.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write_durable(path, msgspec.json.format(msgspec.json.encode(identity), indent=2))
