"""Ours against the better of the re-created policies: ratios, what was to be reached, whether quality is no lower."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from peft_evaluation.metrics.catalogue import Kind
from peft_evaluation.results import Comparison, Judgement
from peft_evaluation.statistics import adjust, compare
from peft_evaluation.typing.measuring import by_place
from peft_evaluation.typing.policies.catalogue import RIVALS
from peft_evaluation.typing.replaying import Replayed
from peft_evaluation.typing.results import Goal, PolicyFigures, Ratio

OURS = ("ours", "ours-base")
_TARGETS = {
    "p50_ms": ("keystroke to first suggestion, p50", 0.6),
    "p95_ms": ("keystroke to first suggestion, p95", 0.35),
    "evaluated_per_typed": ("prompt tokens evaluated per typed character", 0.3),
    "cold-2s": ("cold open, after 2 s of looking", 0.5),
    "cold-0s": ("cold open, typing at once", 0.5),
    "reopened-2s": ("reopened after a restart", 0.15),
}
"""By figure: in words, and the largest ratio to the better rival."""
WITHOUT_MODEL = 0.5
QUALITY = ("exact", "similarity")


def ratios(policies: Mapping[str, PolicyFigures]) -> tuple[Ratio, ...]:
    """Every figure with a target, of each of ours, to the better rival; none without a rival."""
    rivals = [name for name in RIVALS if name in policies]
    found = []
    for name in (name for name in OURS if name in policies):
        for figure in _TARGETS:
            measured = [rival for rival in rivals if _has(policies[rival], figure)]
            if not measured or not _has(policies[name], figure):
                continue
            best = min(measured, key=lambda rival: _of(policies[rival], figure))
            value = _ratio(_of(policies[name], figure), _of(policies[best], figure))
            found.append(Ratio(policy=name, figure=figure, value=value, rival=best))
    return tuple(found)


def comparisons(replayed: Sequence[Replayed], *, seed: int) -> tuple[Comparison, ...]:
    """The quality of each of ours against each rival, line by line: paired permutation tests, adjusted."""
    found: list[Comparison] = []
    names = {each.policy for each in replayed}
    for metric in QUALITY:
        values = {name: by_place((each for each in replayed if each.policy == name), metric) for name in sorted(names)}
        pairs = [(ours, rival) for ours in OURS for rival in RIVALS if ours in names and rival in names]
        found += adjust([compare((o, values[o]), (r, values[r]), metric, Kind.MEAN, seed=seed) for o, r in pairs])
    return tuple(found)


def goals(
    policies: Mapping[str, PolicyFigures], ratios: Sequence[Ratio], comparisons: Sequence[Comparison]
) -> tuple[Goal, ...]:
    """What was to be reached, of the product as installed; quality on equal weights where those were replayed."""
    by_figure = {ratio.figure: ratio.value for ratio in ratios if ratio.policy == "ours"}
    found = [
        Goal(
            what=words,
            target=f"at most {largest:g} of the better rival",
            value=by_figure.get(figure),
            met=None if by_figure.get(figure) is None else by_figure[figure] <= largest,  # type: ignore[operator]
        )
        for figure, (words, largest) in _TARGETS.items()
    ]
    share = policies["ours"].without_model if "ours" in policies else None
    found.append(
        Goal(
            what="keystrokes answered without the model",
            target=f"at least {100 * WITHOUT_MODEL:.0f} %",
            value=share,
            met=None if share is None else share >= WITHOUT_MODEL,
        )
    )
    judged = next((name for name in reversed(OURS) if any(each.strategy == name for each in comparisons)), "")
    tests = [each for each in comparisons if each.strategy == judged]
    # Where nothing was ever shown, no test can say that it is good.
    silent = judged not in policies or policies[judged].exact_shown is None
    lowest = min((each.difference for each in tests), default=None)
    found.append(
        Goal(
            what=f"quality of {judged or 'ours'} not lower (paired test)",
            target="no rival significantly better",
            value=lowest,
            met=None if not tests or silent else all(each.judgement is not Judgement.WORSE for each in tests),
        )
    )
    return tuple(found)


def _has(figures: PolicyFigures, figure: str) -> bool:
    """Whether it was measured: a time that is null was, and is infinite; a number of tokens that is null was not."""
    if figure in figures.scenes or figure.endswith("_ms"):
        return True
    return getattr(figures, figure, None) is not None


def _of(figures: PolicyFigures, figure: str) -> float:
    value = figures.scenes[figure] if figure in figures.scenes else getattr(figures, figure)
    return math.inf if value is None else float(value)


def _ratio(ours: float, theirs: float) -> float | None:
    if math.isinf(ours):
        return None
    if math.isinf(theirs):
        return 0.0
    if theirs == 0:
        return 1.0 if ours == 0 else None
    return round(ours / theirs, 3)
