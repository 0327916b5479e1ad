"""Judge a tuned adapter against what serves now, on examples that it has not seen.

A repository's adapter is judged against what serves there, on holes in the lines of its newest commits; that of a data
set against what serves everywhere, on the data's test part, for each task that it was trained for.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from peft_core.api_types import Task
from peft_core.errors import PeftDaemonError
from peft_core.settings import Settings
from peft_core.status_types import TORCH, UPSTREAM
from peft_core.tasks import OnProgress
from peft_daemon.adapters.manifest import AdapterLease, Manifest
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.context.selection import SelectionLimits
from peft_daemon.engines import factory
from peft_daemon.engines.limits import LEAST_PROMPT_TOKENS
from peft_tuning.budget import GATE_SHARE
from peft_tuning.data.examples import DataSet, Example, FillExample, HoleKind
from peft_tuning.data.repository.chunks import CONTEXT_TOKENS, ChunkSelector, selector_of_commit
from peft_tuning.data.repository.documents import ANSWER_TOKENS
from peft_tuning.encode import (
    EncodedExample,
    EncodedExamples,
    ExampleTokenizer,
    TokenLimits,
    encode_examples,
    task_of,
)
from peft_tuning.events import GateVerdict, Loading
from peft_tuning.gate import (
    MIN_HOLES,
    ON_OR_OFF_SCALES,
    SCALES,
    SWEEP_SHARE,
    GateHoles,
    Opponent,
    Way,
    general_holes,
    judge,
    passes,
)
from peft_tuning.installation import Installation
from peft_tuning.likelihood import AnswerScorer
from peft_tuning.methods.lora import LORA
from peft_tuning.mixture import mix
from peft_tuning.model_card import tasks_of
from peft_tuning.prepare import load_base
from peft_tuning.start import StartingPoint, what_serves

MEASURED_HOLES = 4
LIMITS = TokenLimits(prompt_tokens=LEAST_PROMPT_TOKENS, response_tokens=ANSWER_TOKENS)
"""Prompts are as long as those of completion where the machine is slow, answers as those of an editor."""
GENERAL_SHARE = 1 / 4
"""Holes in general code, for each one to judge by."""


@dataclass(frozen=True, kw_only=True)
class Court:
    """What an adapter is judged with."""

    repository: Path | None
    """Where it would serve; None: everywhere."""
    holes: int
    """Most examples to judge by, for each task."""
    budget_s: float | None
    """Time for the whole run; None: no limit."""
    start: StartingPoint | None = None
    """What the run began with."""


def judge_adapter(
    court: Court, installation: Installation, data: DataSet, adapter: Path, on_progress: OnProgress[Loading]
) -> tuple[GateVerdict, ...]:
    """Return the gate's verdicts on the adapter in the folder ``adapter``, one for each task that it would serve.

    None if the engine cannot serve its method, or another model has its tasks. All tasks are judged at the same point
    of the way, which is chosen by the validation examples of all. Raises what loading the base and the adapters raises.
    """
    tasks = [task for task in tasks_of(data) if task in installation.answers]
    with tempfile.TemporaryDirectory(prefix="peft-daemon-gate-") as scratch:
        # A temporary registry: the adapter is registered only after it was judged.
        registry = AdapterRegistry(Path(scratch))
        manifest = registry.import_(adapter, name="judged", base=installation.base)
        if not tasks or factory.engine_id(installation.settings, installation.entry) not in manifest.engines:
            return ()
        on_progress(Loading(what="held-out examples"))
        base = load_base(installation.base.path, LORA)
        scorer = AnswerScorer(base)
        made = registry.lease(manifest, engine=TORCH)
        way = (
            mixtures(court.start, made, Path(scratch) / "mixtures")
            if court.start
            else Way("", {each: replace(made, scale=each) if each else None for each in _scales(manifest)})
        )
        tokens = ExampleTokenizer.of(base)
        as_in_editor = court.repository is not None and Task.EDIT not in tasks
        limits = LIMITS if as_in_editor else replace(LIMITS, response_tokens=data.response_tokens)

        def encode(examples: Sequence[Example]) -> EncodedExamples:
            return encode_examples(examples, installation.entry.prompt_formats, tokens, limits)

        verdicts: list[GateVerdict] = []
        for task in tasks:
            opponent = _opponent(court, installation, task)
            shows_context = court.repository is not None and task is Task.FILL
            sizes = _context_sizes(installation.settings, opponent.context) if shows_context else (0,)
            holes = _holes(court, data, encode, scorer, task=task, points=len(way.points), sizes=sizes)
            if opponent.context not in holes.judged:  # its code of other files cannot be had
                opponent = replace(opponent, context=min(holes.judged))
            verdicts.append(judge(scorer, way, opponent, holes, task=task, on_progress=on_progress))
            chosen = verdicts[0].scale
            way = replace(way, points={share: way.points[share] for share in way.points if share in (0.0, chosen)})
        return tuple(verdicts)


def _scales(manifest: Manifest) -> tuple[float, ...]:
    return SCALES if manifest.scalable else ON_OR_OFF_SCALES


def mixtures(start: StartingPoint, made: AdapterLease, folder: Path) -> Way:
    """Write adapters between what a run began with and what it made into ``folder``; return the way."""
    points: dict[float, AdapterLease | None] = {}
    for share in SCALES:
        mix(start.lease, made.path, share, folder / f"{share:g}")
        points[share] = AdapterLease(f"{made.digest}@{share:g}", folder / f"{share:g}")
    return Way(start.manifest.name, points)


def _opponent(court: Court, installation: Installation, task: Task) -> Opponent:
    """Return what serves ``task`` now where the adapter would."""
    registry, where = installation.registry, str(court.repository) if court.repository else None
    served = what_serves(registry, where, installation.base.sha256, task)
    context = registry.context_tokens(where, installation.settings) if where else 0
    if served is None:
        return Opponent(installation.entry.id, None, context)
    return Opponent(served.name, registry.lease(served, served.scale, engine=TORCH), context)


def _context_sizes(settings: Settings, now: int) -> tuple[int, ...]:
    """Return the tokens of other files' code that are tried: the setting's, else none, and those of now or a few."""
    if settings.repository_context >= 0 or settings.engine == UPSTREAM:
        return (now,)
    return 0, now or CONTEXT_TOKENS


def _holes(
    court: Court,
    data: DataSet,
    encode: Callable[[Sequence[Example]], EncodedExamples],
    scorer: AnswerScorer,
    *,
    task: Task,
    points: int,
    sizes: tuple[int, ...],
) -> GateHoles:
    """Return the examples of a task: so many as are asked for, or as can be scored in the budget's part for that.

    General code is read where the adapter would fill in.
    """
    began = time.monotonic()
    count = court.holes
    general_share = GENERAL_SHARE if task is Task.FILL else 0.0
    test = [each for each in data.test if task_of(each) is task]
    few = encode(_first(test, MEASURED_HOLES)).examples
    with _chunks(court.repository, data.tree, sizes) as chunks:
        if court.budget_s is not None and few:
            scorer.score(few[:1], None)  # the first pass of a process is slower than all others
            scoring = time.monotonic()
            scorer.score(few, None)
            each = (time.monotonic() - scoring) / len(few) * passes(points, len(sizes), general_share)
            left_s = court.budget_s * GATE_SHARE - (scoring - began)
            count = min(count, max(MIN_HOLES, int(left_s / each)))
        validation = _first(data.validation, round(count * SWEEP_SHARE))
        by_size = {tokens: _with_chunks(validation, tokens, chunks) for tokens in sizes}
        # Without any chunk there is nothing to try.
        kept = [size for size in sizes if not size or any(_has_context(each) for each in by_size[size])] or [0]
        sweep = _encoded({size: by_size.get(size, validation) for size in kept}, encode)
        first = _first(test, count)
        judged = _encoded({size: _with_chunks(first, size, chunks) for size in kept}, encode)
    return GateHoles(sweep=sweep, judged=judged, general=encode(general_holes(round(count * general_share))).examples)


@contextmanager
def _chunks(repository: Path | None, tree: str, sizes: Sequence[int]) -> Iterator[ChunkSelector | None]:
    """Yield what selects code of other files as it was before the held-out lines; None where that cannot be had."""
    with ExitStack() as opened:
        selector = None
        if repository is not None and any(sizes) and tree:
            with suppress(OSError, PeftDaemonError):  # a full disk, or no git any more
                selector = opened.enter_context(selector_of_commit(repository, tree))
        yield selector


def _with_chunks(holes: tuple[Example, ...], tokens: int, chunks: ChunkSelector | None) -> tuple[Example, ...]:
    """Return the holes with at most so many tokens of other files' code."""
    if not tokens or chunks is None:
        return holes
    limits = SelectionLimits.of_tokens(tokens)
    return tuple(
        replace(each, context=chunks.select(each, limits)) if isinstance(each, FillExample) else each for each in holes
    )


def _encoded(
    by_size: Mapping[int, Sequence[Example]], encode: Callable[[Sequence[Example]], EncodedExamples]
) -> dict[int, tuple[EncodedExample, ...]]:
    """Return the holes that can be encoded with each size, in order."""
    made = {size: encode(each) for size, each in by_size.items()}
    in_all = frozenset.intersection(*(frozenset(each.rows) for each in made.values()))
    return {
        size: tuple(example for row, example in zip(each.rows, each.examples, strict=True) if row in in_all)
        for size, each in made.items()
    }


def _has_context(example: Example) -> bool:
    return isinstance(example, FillExample) and bool(example.context)


def _first(examples: Sequence[Example], limit: int) -> tuple[Example, ...]:
    """Return the first examples, without function bodies, which have too many right answers."""
    usable = (each for each in examples if not (isinstance(each, FillExample) and each.kind is HoleKind.BODY))
    return tuple(islice(usable, limit))
