"""The gate: decide whether a new adapter is better than what would serve otherwise, and at which scale it applies.

There are three sets of holes, and none of them was trained on. Points on the way from what the run began with to what
it made are tried on the first: scales of an adapter that began with new weights, mixtures (``mixture``) of one that
began with another. The best of them is compared with what serves now on the second, hole by hole; the bare base is told
besides. The third is general code, Python's own library, on which the adapter should have forgotten nothing. The point
is chosen on other holes than the adapter is judged by, so the p-value means what it says.

Answers are judged by their likelihood (see there), with the prompts that completion builds: a few hundred forward
passes, where writing the answers took an hour on a CPU. The test is a paired permutation test on each hole's nats per
token (signs of the differences flipped, one-sided). Exact matches go into the record beside it with McNemar's exact
test, and an adapter that is more likely but right less often is not let through.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Protocol

from peft_core.code.structure import parse_structure
from peft_core.tasks import OnProgress
from peft_daemon.adapters.manifest import AdapterLease
from peft_tuning.data.examples import FillExample, HoleKind
from peft_tuning.data.repository.holes import HoleSettings, cut_holes
from peft_tuning.encode import EncodedExample
from peft_tuning.events import GateVerdict, HoleAverage, Loading, ScaleScore
from peft_tuning.likelihood import AnswerLikelihood
from peft_tuning.statistics import SIGNIFICANT, mcnemar, paired_permutation

SCALES = (0.0, 0.5, 0.75, 1.0)
"""Points of the sweep; 0 is what the run began with."""
ON_OR_OFF_SCALES = (0.0, 1.0)
"""The scales of adapters that can only be on or off."""
MIN_HOLES = 8
"""With fewer holes no difference can be significant enough to believe."""
SWEEP_SHARE = 1 / 3
"""Holes of the sweep, for each one to judge by."""
GENERAL_MODULES = (
    "argparse.py", "bisect.py", "calendar.py", "configparser.py", "csv.py", "difflib.py", "fractions.py", "heapq.py",
    "shlex.py", "statistics.py", "textwrap.py", "zipapp.py",
)  # fmt: skip
GENERAL_CONTEXT_CHARS = 4000
"""Characters of a module of Python's library on each side of a hole."""


@dataclass(frozen=True)
class GateHoles:
    """The three sets of holes, encoded with the prompts that completion builds."""

    sweep: tuple[EncodedExample, ...]
    judged: tuple[EncodedExample, ...]
    general: tuple[EncodedExample, ...]


def passes(scales: int, general_share: float) -> float:
    """Return how many answers are scored for each hole to judge by, with so many scales and holes of general code."""
    return scales * SWEEP_SHARE + 3 + 2 * general_share


class Scorer(Protocol):
    """Tells how likely answers are; see ``likelihood.AnswerScorer``."""

    def score(
        self,
        examples: Sequence[EncodedExample],
        adapter: AdapterLease | None,
        *,
        on_scored: Callable[[int], None] = ...,
    ) -> tuple[AnswerLikelihood, ...]:
        """Return the likelihood of each answer with the adapter at its scale, or with the base alone."""


@dataclass(frozen=True)
class Opponent:
    """What would serve if the adapter did not."""

    name: str
    """The adapter that is in use, or the base model."""
    adapter: AdapterLease | None


@dataclass(frozen=True)
class Way:
    """What can be chosen from: points on the way from what a run began with to what it made."""

    start: str
    """The adapter that the run began with; empty for the base."""
    points: Mapping[float, AdapterLease | None]
    """Rising from 0, the beginning, to 1; None is the base."""


def judge(
    scorer: Scorer, way: Way, opponent: Opponent, holes: GateHoles, *, on_progress: OnProgress[Loading]
) -> GateVerdict:
    """Sweep the points, compare the best with what serves now, and check for forgetting.

    Raises InvalidInput for an adapter that cannot be loaded.
    """
    against = 3 if opponent.adapter else 2
    total = len(holes.sweep) * len(way.points) + against * len(holes.judged) + 2 * len(holes.general)
    done = 0

    def score(
        what: str, which: Sequence[EncodedExample], contestant: AdapterLease | None
    ) -> tuple[AnswerLikelihood, ...]:
        def count(scored: int) -> None:
            nonlocal done
            done += scored
            on_progress(Loading(what=what, done=done, of=total))

        return scorer.score(which, contestant, on_scored=count)

    sweep = [
        ScaleScore(share, average_scores(score(f"scale {share:g}", holes.sweep, adapter)))
        for share, adapter in way.points.items()
    ]
    # Of equally good points the nearest, which changes least.
    best = min(sweep, key=lambda point: (point.average.nats, point.scale)).scale
    chosen = way.points[best or max(way.points)]
    tuned = score("adapter", holes.judged, chosen)
    served = score(opponent.name, holes.judged, opponent.adapter)
    base = score("base", holes.judged, None) if opponent.adapter else served
    general_served = score(f"general code, {opponent.name}", holes.general, opponent.adapter)
    general = score("general code, adapter", holes.general, chosen)
    p_nats, p_exact = improvement(served, tuned)
    activate, reason = _decide(
        best, way, opponent.name, served=average_scores(served), tuned=average_scores(tuned), p=p_nats
    )
    return GateVerdict(
        activate=activate,
        reason=reason,
        scale=best,
        start=way.start,
        sweep=tuple(sweep),
        opponent=opponent.name,
        base=average_scores(base),
        served=average_scores(served),
        adapter=average_scores(tuned),
        p_nats=p_nats,
        p_exact=p_exact,
        general_served=average_scores(general_served),
        general_adapter=average_scores(general),
    )


def improvement(before: Sequence[AnswerLikelihood], after: Sequence[AnswerLikelihood]) -> tuple[float, float]:
    """Return the one-sided p-values of the same holes becoming likelier (nats), and being right more often (exact)."""
    pairs = list(zip(before, after, strict=True))
    won = sum(now.exact and not then.exact for then, now in pairs)
    lost = sum(then.exact and not now.exact for then, now in pairs)
    likelier = paired_permutation([then.nats - now.nats for then, now in pairs], alternative="greater")
    return likelier, mcnemar(won, lost, alternative="greater")


def _decide(
    best: float, way: Way, opponent: str, *, served: HoleAverage, tuned: HoleAverage, p: float
) -> tuple[bool, str]:
    gain = (
        f"{served.exact:.0%} → {tuned.exact:.0%} exact, {served.nats:.3f} → {tuned.nats:.3f} nats per token"
        f" against {opponent}"
    )
    if served.holes < MIN_HOLES:
        return False, f"only {served.holes} held-out holes to judge by, {MIN_HOLES} are needed"
    if not best:
        return False, f"no scale of it was better than {way.start or 'the base'} ({gain} at scale 1)"
    if p >= SIGNIFICANT:
        return False, f"no difference shown on {served.holes} held-out holes: {gain}, p = {p:.3f}"
    if tuned.exact < served.exact:
        return False, f"more likely but right less often on {served.holes} held-out holes: {gain}"
    return True, f"better on {served.holes} held-out holes: {gain}, p = {p:.3f}"


def average_scores(scores: Sequence[AnswerLikelihood]) -> HoleAverage:
    """Return the means; zeros without scores."""
    if not scores:
        return HoleAverage(0, 0.0, 0.0)
    return HoleAverage(len(scores), fmean(s.exact for s in scores), fmean(s.nats for s in scores))


def general_holes(count: int) -> tuple[FillExample, ...]:
    """Cut ``count`` line holes into Python's library, the same for one version of Python; fewer without its modules."""
    library = Path(sysconfig.get_path("stdlib"))
    settings = HoleSettings(shares={HoleKind.LINE: 1.0})
    by_module = []
    for module in GENERAL_MODULES:
        if not (library / module).is_file():
            continue
        text = (library / module).read_text(encoding="utf-8")
        holes = cut_holes(parse_structure(text, "python"), seed=module, settings=settings, avoid=())
        by_module.append([_example(module, text, hole.start, hole.end) for hole in holes])
    turns = (each[turn] for turn in range(count) for each in by_module if turn < len(each))
    return tuple(example for example, _ in zip(turns, range(count), strict=False))


def _example(module: str, text: str, start: int, end: int) -> FillExample:
    return FillExample(
        id=f"{module}:{start}",
        prefix=text[max(0, start - GENERAL_CONTEXT_CHARS) : start],
        middle=text[start:end],
        suffix=text[end : end + GENERAL_CONTEXT_CHARS],
        path=module,
        kind=HoleKind.LINE,
    )
