"""The gate: decide whether a new adapter is better than what would serve otherwise, and at which scale it applies.

There are three sets of holes (of a data set of sentences: sentences with their code), and none of them was trained on.
Points on the way from what the run began with to what it made are tried on the first: scales of an adapter that began
with new weights, mixtures (``mixture``) of one that began with another. So are what serves now and the best of these
points with code of other files in the prompt. Each prompt of a completion pays for that code, so it is taken only if
these holes show that it helps. What was chosen is compared with what serves now on the second set, hole by hole; the
bare base is told besides. The third is general code, Python's own library, on which an adapter that fills in should
have forgotten nothing. The choice is made on other holes than those that judge, so the p-value means what it says.

Answers are judged by their likelihood (see there), with the prompts that completion builds: a few hundred forward
passes, where writing the answers took an hour on a CPU. The test is a paired permutation test on each hole's nats per
token (signs of the differences flipped, one-sided). Exact matches go into the record beside it with McNemar's exact
test, and an adapter that is more likely but right less often is not let through.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Protocol

from peft_core.api_types import Task
from peft_core.code.structure import parse_structure
from peft_core.tasks import OnProgress
from peft_daemon.adapters.manifest import AdapterLease
from peft_tuning.data.examples import FillExample, HoleKind
from peft_tuning.data.repository.holes import HoleSettings, cut_holes
from peft_tuning.encode import EncodedExample
from peft_tuning.events import JUDGED, ContextScore, GateVerdict, HoleAverage, Loading, ScaleScore
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

    sweep: Mapping[int, tuple[EncodedExample, ...]]
    """The same holes by the tokens of other files' code in their prompts: as many as are tried, one number or two.

    Without any, the adapter is judged as it was made.
    """
    judged: Mapping[int, tuple[EncodedExample, ...]]
    general: tuple[EncodedExample, ...]


def passes(points: int, contexts: int, general_share: float) -> float:
    """Return how many answers are scored for each hole to judge by, for so many points and numbers of tokens."""
    return (points + 2 * (contexts - 1)) * SWEEP_SHARE + 3 + 2 * general_share


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
    context: int = 0
    """Tokens of other files' code in its prompts."""


@dataclass(frozen=True)
class Way:
    """What can be chosen from: points on the way from what a run began with to what it made."""

    start: str
    """The adapter that the run began with; empty for the base."""
    points: Mapping[float, AdapterLease | None]
    """Rising from 0, the beginning, to 1; None is the base."""


@dataclass(frozen=True)
class _Contestant:
    """What was tried on the holes of the sweep."""

    adapter: AdapterLease | None
    share: float
    """How far on the way it is; 0: nothing of what the run made."""
    context: int
    scores: tuple[AnswerLikelihood, ...]

    @property
    def nats(self) -> float:
        return average_scores(self.scores).nats


def judge(
    scorer: Scorer,
    way: Way,
    opponent: Opponent,
    holes: GateHoles,
    *,
    task: Task = Task.FILL,
    on_progress: OnProgress[Loading],
) -> GateVerdict:
    """Sweep the points, compare the best with what serves now, and check for forgetting.

    The judged holes are of one task, those of the sweep may be of several.

    Raises InvalidInput for an adapter that cannot be loaded.
    """
    plain, *more = sorted(holes.sweep)
    tried = len(way.points) + 2 * len(more)
    against = 3 if opponent.adapter or opponent.context != plain else 2
    total = len(holes.sweep[plain]) * tried + against * len(holes.judged[plain]) + 2 * len(holes.general)
    done = 0

    def score(
        what: str, which: Sequence[EncodedExample], contestant: AdapterLease | None
    ) -> tuple[AnswerLikelihood, ...]:
        def count(scored: int) -> None:
            nonlocal done
            done += scored
            on_progress(Loading(what=what, done=done, of=total))

        return scorer.score(which, contestant, on_scored=count)

    points = [
        _Contestant(adapter, share, plain, score(f"scale {share:g}", holes.sweep[plain], adapter))
        for share, adapter in way.points.items()
    ]
    averages = {point.share: average_scores(point.scores) for point in points}
    nearest = best_share(averages) if holes.sweep[plain] else max(averages)
    best = next(point for point in points if point.share == nearest)
    made = min(points, key=lambda point: (not point.share, point.nats, point.share))
    shown = [
        _Contestant(adapter, share, tokens, score(f"{who}, code of other files", holes.sweep[tokens], adapter))
        for tokens in more
        for who, adapter, share in ((opponent.name, opponent.adapter, 0.0), ("adapter", made.adapter, made.share))
    ]
    chosen = _with_context(best, shown)
    changes_nothing = not chosen.share and chosen.context in (plain, opponent.context)
    judged = replace(made, share=0.0) if changes_nothing else chosen
    tuned = score("adapter", holes.judged[judged.context], judged.adapter)
    served = score(opponent.name, holes.judged[opponent.context], opponent.adapter)
    base = score("base", holes.judged[plain], None) if against == 3 else served
    general_served = score(f"general code, {opponent.name}", holes.general, opponent.adapter)
    general = score("general code, adapter", holes.general, judged.adapter)
    p_nats, p_exact = improvement(served, tuned)
    means = average_scores(served), average_scores(tuned)
    wins, reason = _decide(judged, way, opponent, what=JUDGED[task.value], served=means[0], tuned=means[1], p=p_nats)
    return GateVerdict(
        task=task.value,
        activate=wins and judged.share > 0,
        reason=reason,
        scale=judged.share,
        start=way.start,
        context=judged.context,
        context_alone=wins and not judged.share,
        sweep=tuple(ScaleScore(point.share, average_scores(point.scores)) for point in points),
        with_context=tuple(ContextScore(each.share, each.context, average_scores(each.scores)) for each in shown),
        opponent=opponent.name,
        served_context=opponent.context,
        base=average_scores(base),
        served=average_scores(served),
        adapter=average_scores(tuned),
        p_nats=p_nats,
        p_exact=p_exact,
        general_served=average_scores(general_served),
        general_adapter=average_scores(general),
    )


def best_share(averages: Mapping[float, HoleAverage]) -> float:
    """Return the point with the least nats; of equally good ones the nearest, which changes least."""
    return min(averages, key=lambda share: (averages[share].nats, share))


def improvement(before: Sequence[AnswerLikelihood], after: Sequence[AnswerLikelihood]) -> tuple[float, float]:
    """Return the one-sided p-values of the same holes becoming likelier (nats), and being right more often (exact)."""
    pairs = list(zip(before, after, strict=True))
    won = sum(now.exact and not then.exact for then, now in pairs)
    lost = sum(then.exact and not now.exact for then, now in pairs)
    likelier = paired_permutation([then.nats - now.nats for then, now in pairs], alternative="greater")
    return likelier, mcnemar(won, lost, alternative="greater")


def _with_context(best: _Contestant, shown: Sequence[_Contestant]) -> _Contestant:
    """Return the likeliest of what was shown code of other files, if it is likelier than ``best`` by more than luck."""
    likeliest = min(shown, key=lambda each: each.nats, default=best)
    likelier, _righter = improvement(best.scores, likeliest.scores)
    return likeliest if likelier < SIGNIFICANT else best


def _decide(
    judged: _Contestant, way: Way, opponent: Opponent, *, what: str, served: HoleAverage, tuned: HoleAverage, p: float
) -> tuple[bool, str]:
    gain = (
        f"{served.exact:.0%} → {tuned.exact:.0%} exact, {served.nats:.3f} → {tuned.nats:.3f} nats per token"
        f" against {opponent.name}"
    )
    if judged.context != opponent.context:
        gain += f", with {judged.context or 'no'} tokens of other files' code in place of {opponent.context or 'none'}"
    alone = not judged.share and judged.context > opponent.context
    if served.holes < MIN_HOLES:
        return False, f"only {served.holes} held-out {what} to judge by, {MIN_HOLES} are needed"
    if not judged.share and not alone:
        return False, f"no scale of it was better than {way.start or 'the base'} (at its best {gain})"
    if p >= SIGNIFICANT:
        return False, f"no difference shown on {served.holes} held-out {what}: {gain}, p = {p:.3f}"
    if tuned.exact < served.exact:
        return False, f"more likely but right less often on {served.holes} held-out {what}: {gain}"
    who = "code of other files helps without it, and is shown from now on; " if alone else ""
    return True, f"{who}better on {served.holes} held-out {what}: {gain}, p = {p:.3f}"


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
