"""From what was replayed to the figures of one policy. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median

from peft_evaluation.typing.policies.base import Totals
from peft_evaluation.typing.replaying import Replayed, added
from peft_evaluation.typing.results import PolicyFigures
from peft_evaluation.typing.watching import Keystroke


def figures(what: str, replayed: Sequence[Replayed], scenes: Mapping[str, Sequence[Replayed]]) -> PolicyFigures:
    """One policy's figures over its traces; ``scenes`` are its replays of each fixed scene.

    Raises ValueError without a counted keystroke.
    """
    strokes = [stroke for each in replayed for stroke in each.keystrokes]
    if not strokes:
        raise ValueError("no keystroke was counted")
    count, typed = len(strokes), sum(each.typed for each in replayed)
    spent = Totals()
    for each in replayed:
        spent = added(spent, each.totals)
    first = [stroke.shown_ms for stroke in strokes]
    full = [stroke.full_ms for stroke in strokes]
    answered = [stroke.answered_ms for stroke in strokes if stroke.answered_ms is not None]
    shown = [stroke for stroke in strokes if stroke.judged.offered]
    offered = sum(stroke.judged.offered for stroke in shown)
    return PolicyFigures(
        what=what,
        keystrokes=count,
        typed=typed,
        p50_ms=percentile(first, 50),
        p95_ms=percentile(first, 95),
        p99_ms=percentile(first, 99),
        full_p50_ms=percentile(full, 50),
        full_p95_ms=percentile(full, 95),
        full_p99_ms=percentile(full, 99),
        within_100_ms=_within(first, 100),
        within_300_ms=_within(first, 300),
        within_1000_ms=_within(first, 1000),
        answer_p50_ms=percentile(answered, 50) if answered else None,
        answer_p95_ms=percentile(answered, 95) if answered else None,
        stayed=_share(stroke.stayed for stroke in strokes),
        never=_share(value is None for value in first),
        nothing=_share(stroke.nothing for stroke in strokes),
        overtaken=_share(stroke.answered_ms is None and not stroke.judged.offered for stroke in strokes),
        without_model=_without_model(strokes),
        requests=spent.requests,
        prompt_evaluated=spent.prompt_evaluated,
        prompt_reused=spent.prompt_reused,
        decoded=spent.decoded,
        evaluated_per_typed=_per(spent.prompt_evaluated, typed),
        decoded_per_typed=_per(spent.decoded, typed),
        kept=spent.kept,
        joined=spent.joined,
        cpu_s=round(spent.cpu_s, 1),
        cpu_s_per_typed=round(spent.cpu_s / typed, 3),
        exact=_share(stroke.judged.exact for stroke in strokes),
        similarity=_rounded(fmean(stroke.judged.similarity for stroke in strokes)),
        exact_shown=_share(stroke.judged.exact for stroke in shown) if shown else None,
        similarity_shown=_rounded(fmean(stroke.judged.similarity for stroke in shown)) if shown else None,
        accepted_per_shown=_rounded(sum(stroke.judged.right for stroke in shown) / offered) if offered else None,
        scenes={name: _scene(each) for name, each in scenes.items()},
    )


def percentile(times: Sequence[float | None], percent: float) -> float | None:
    """The nearest rank: the smallest time that so many percent do not exceed; None (for ever) is the longest.

    Raises ValueError without times.
    """
    if not times:
        raise ValueError("no time to take a percentile of")
    ordered = sorted(math.inf if time is None else time for time in times)
    found = ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]
    return None if math.isinf(found) else found


def by_place(replayed: Iterable[Replayed], metric: str) -> dict[str, float]:
    """``exact`` or ``similarity`` of each written line, the mean over its keystrokes; silence is 0."""
    values: dict[str, list[float]] = {}
    for each in replayed:
        for stroke in each.keystrokes:
            place = f"{each.trace}/{stroke.place}"
            values.setdefault(place, []).append(float(getattr(stroke.judged, metric)))
    return {place: fmean(each) for place, each in values.items()}


def _scene(replayed: Sequence[Replayed]) -> float | None:
    """The median over files of the last keystroke's time; None counts as for ever."""
    last = [each.keystrokes[-1].shown_ms if each.keystrokes else None for each in replayed]
    found = median(math.inf if time is None else time for time in last)
    return None if math.isinf(found) or math.isnan(found) else round(found, 1)


def _without_model(strokes: Sequence[Keystroke]) -> float | None:
    known = any(stroke.cached is not None for stroke in strokes)
    served = _share(stroke.stayed or bool(stroke.cached and stroke.judged.offered) for stroke in strokes)
    return served if known else None


def _within(times: Sequence[float | None], limit: float) -> float:
    return _share(time is not None and time <= limit for time in times)


def _share(found: Iterable[bool]) -> float:
    return _rounded(fmean(float(each) for each in found))


def _per(amount: int | None, typed: int) -> float | None:
    return None if amount is None else round(amount / typed, 2)


def _rounded(value: float) -> float:
    return round(value, 4)
