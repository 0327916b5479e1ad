"""Judge a tuned adapter as the repository's next one: against what serves there now, on code it has not seen."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

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
from peft_tuning.encode import EncodedExample, EncodedExamples, ExampleTokenizer, TokenLimits, encode_examples
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
from peft_tuning.prepare import load_base
from peft_tuning.start import StartingPoint, what_serves

LIMITS = TokenLimits(prompt_tokens=LEAST_PROMPT_TOKENS, response_tokens=ANSWER_TOKENS)
"""Prompts are as long as those of completion where the machine is slow."""
MEASURED_HOLES = 4
GENERAL_SHARE = 1 / 4
"""Holes in general code, for each one to judge by."""


@dataclass(frozen=True, kw_only=True)
class Court:
    """What an adapter is judged with: the repository, how many holes at most, and the time; None for no limit."""

    repository: Path
    holes: int
    budget_s: float | None
    start: StartingPoint | None = None
    """What the run began with."""


def judge_adapter(
    court: Court, installation: Installation, data: DataSet, adapter: Path, on_progress: OnProgress[Loading]
) -> GateVerdict | None:
    """Return the gate's verdict on the adapter in the folder ``adapter``; None if the engine cannot serve its method.

    Raises what loading the base and the adapters raises.
    """
    with tempfile.TemporaryDirectory(prefix="peft-daemon-gate-") as scratch:
        # A temporary registry: the adapter is registered only after it was judged.
        registry = AdapterRegistry(Path(scratch))
        manifest = registry.import_(adapter, name="judged", base=installation.base)
        if factory.engine_id(installation.settings, installation.entry) not in manifest.engines:
            return None
        on_progress(Loading(what="held-out holes"))
        base = load_base(installation.base.path, LORA)
        scorer = AnswerScorer(base)
        made = registry.lease(manifest, engine=TORCH)
        way = (
            mixtures(court.start, made, Path(scratch) / "mixtures")
            if court.start
            else Way("", {each: replace(made, scale=each) if each else None for each in _scales(manifest)})
        )
        tokens = ExampleTokenizer.of(base)

        def encode(holes: Sequence[FillExample]) -> EncodedExamples:
            return encode_examples(holes, installation.entry.prompt_formats, tokens, LIMITS)

        opponent = _opponent(court, installation)
        sizes = _context_sizes(installation.settings, opponent.context)
        holes = _holes(court, data, encode, scorer, points=len(way.points), sizes=sizes)
        if opponent.context not in holes.judged:  # its code of other files cannot be had
            opponent = replace(opponent, context=min(holes.judged))
        return judge(scorer, way, opponent, holes, on_progress=on_progress)


def _scales(manifest: Manifest) -> tuple[float, ...]:
    return SCALES if manifest.scalable else ON_OR_OFF_SCALES


def mixtures(start: StartingPoint, made: AdapterLease, folder: Path) -> Way:
    """Write adapters between what a run began with and what it made into ``folder``; return the way."""
    points: dict[float, AdapterLease | None] = {}
    for share in SCALES:
        mix(start.lease, made.path, share, folder / f"{share:g}")
        points[share] = AdapterLease(f"{made.digest}@{share:g}", folder / f"{share:g}")
    return Way(start.manifest.name, points)


def _opponent(court: Court, installation: Installation) -> Opponent:
    """Return what serves the repository now."""
    registry = installation.registry
    served = what_serves(registry, str(court.repository), installation.base.sha256)
    context = registry.context_tokens(str(court.repository), installation.settings)
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
    encode: Callable[[Sequence[FillExample]], EncodedExamples],
    scorer: AnswerScorer,
    *,
    points: int,
    sizes: tuple[int, ...],
) -> GateHoles:
    """Return the holes: so many as are asked for, or as can be scored in the budget's part for that."""
    began = time.monotonic()
    count = court.holes
    few = encode(_first(data.test, MEASURED_HOLES)).examples
    with _chunks(court.repository, data.tree, sizes) as chunks:
        if court.budget_s is not None and few:
            scorer.score(few[:1], None)  # the first pass of a process is slower than all others
            scoring = time.monotonic()
            scorer.score(few, None)
            each = (time.monotonic() - scoring) / len(few) * passes(points, len(sizes), GENERAL_SHARE)
            left_s = court.budget_s * GATE_SHARE - (scoring - began)
            count = min(count, max(MIN_HOLES, int(left_s / each)))
        validation = _first(data.validation, round(count * SWEEP_SHARE))
        by_size = {tokens: _with_chunks(validation, tokens, chunks) for tokens in sizes}
        # Without any chunk there is nothing to try.
        kept = [size for size in sizes if not size or any(each.context for each in by_size[size])] or [0]
        sweep = _encoded({size: by_size.get(size, validation) for size in kept}, encode)
        test = _first(data.test, count)
        judged = _encoded({size: _with_chunks(test, size, chunks) for size in kept}, encode)
    return GateHoles(sweep=sweep, judged=judged, general=encode(general_holes(round(count * GENERAL_SHARE))).examples)


@contextmanager
def _chunks(repository: Path, tree: str, sizes: Sequence[int]) -> Iterator[ChunkSelector | None]:
    """Yield what selects code of other files as it was before the held-out lines; None where that cannot be had."""
    with ExitStack() as opened:
        selector = None
        if any(sizes) and tree:
            with suppress(OSError, PeftDaemonError):  # a full disk, or no git any more
                selector = opened.enter_context(selector_of_commit(repository, tree))
        yield selector


def _with_chunks(holes: tuple[FillExample, ...], tokens: int, chunks: ChunkSelector | None) -> tuple[FillExample, ...]:
    """Return the holes with at most so many tokens of other files' code."""
    if not tokens or chunks is None:
        return holes
    limits = SelectionLimits.of_tokens(tokens)
    return tuple(replace(each, context=chunks.select(each, limits)) for each in holes)


def _encoded(
    by_size: Mapping[int, Sequence[FillExample]], encode: Callable[[Sequence[FillExample]], EncodedExamples]
) -> dict[int, tuple[EncodedExample, ...]]:
    """Return the holes that can be encoded with each size, in order."""
    made = {size: encode(each) for size, each in by_size.items()}
    in_all = frozenset.intersection(*(frozenset(each.rows) for each in made.values()))
    return {
        size: tuple(example for row, example in zip(each.rows, each.examples, strict=True) if row in in_all)
        for size, each in made.items()
    }


def _first(examples: Sequence[Example], limit: int) -> tuple[FillExample, ...]:
    """Return the first holes, without function bodies, which have too many right answers."""
    fills = (each for each in examples if isinstance(each, FillExample) and each.kind is not HoleKind.BODY)
    return tuple(islice(fills, limit))
