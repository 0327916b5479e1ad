"""Judge a tuned adapter as the repository's next one: against what serves there now, on code it has not seen."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from peft_core.status_types import TORCH
from peft_core.tasks import OnProgress
from peft_daemon.adapters.manifest import AdapterLease, Manifest
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.engines import factory
from peft_daemon.engines.limits import LEAST_PROMPT_TOKENS
from peft_daemon.engines.torch.base_model import load_model
from peft_tuning.budget import GATE_SHARE
from peft_tuning.data.examples import DataSet, Example, FillExample, HoleKind
from peft_tuning.data.repository.documents import ANSWER_TOKENS
from peft_tuning.encode import EncodedExample, ExampleTokenizer, TokenLimits, encode_examples
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
        device = "cuda" if torch.cuda.is_available() else "cpu"
        base = load_model(installation.base.path, LORA.precision_on(device), device=device)
        scorer = AnswerScorer(base)
        made = registry.lease(manifest, engine=TORCH)
        way = (
            mixtures(court.start, made, Path(scratch) / "mixtures")
            if court.start
            else Way("", {each: replace(made, scale=each) if each else None for each in _scales(manifest)})
        )
        tokens = ExampleTokenizer.of(base)

        def encoded(holes: Sequence[FillExample]) -> tuple[EncodedExample, ...]:
            return encode_examples(holes, installation.entry.prompt_formats, tokens, LIMITS).examples

        return judge(
            scorer,
            way,
            _opponent(court, installation),
            _holes(court, data, encoded, scorer, len(way.points)),
            on_progress=on_progress,
        )


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
    served = what_serves(installation.registry, str(court.repository), installation.base.sha256)
    if served is None:
        return Opponent(installation.entry.id, None)
    return Opponent(served.name, installation.registry.lease(served, served.scale, engine=TORCH))


def _holes(
    court: Court,
    data: DataSet,
    encoded: Callable[[Sequence[FillExample]], tuple[EncodedExample, ...]],
    scorer: AnswerScorer,
    scales: int,
) -> GateHoles:
    """Return the holes: so many as are asked for, or as can be scored in the budget's part for that."""
    count = court.holes
    judged = encoded(_first(data.test, count))
    if court.budget_s is not None and judged:
        few = judged[:MEASURED_HOLES]
        scorer.score(few[:1], None)  # the first pass of a process is slower than all others
        began = time.monotonic()
        scorer.score(few, None)
        each = (time.monotonic() - began) / len(few) * passes(scales, GENERAL_SHARE)
        count = min(count, max(MIN_HOLES, int(court.budget_s * GATE_SHARE / each)))
    return GateHoles(
        sweep=encoded(_first(data.validation, round(count * SWEEP_SHARE))),
        judged=judged[:count],
        general=encoded(general_holes(round(count * GENERAL_SHARE))),
    )


def _first(examples: Sequence[Example], limit: int) -> tuple[FillExample, ...]:
    """Return the first holes, without function bodies, which have too many right answers."""
    fills = (each for each in examples if isinstance(each, FillExample) and each.kind is not HoleKind.BODY)
    return tuple(islice(fills, limit))
