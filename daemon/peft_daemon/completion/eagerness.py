"""How sure the model must be before an editor shows what it wrote: fixed steps, or learned from what the user took.

``auto`` is a logistic regression of "the user took it" over the confidence of what was shown. It starts as ``medium``:
a prior holds the regression to the weights of ``confidence`` until there are outcomes that say otherwise. It stays
between ``low`` and ``high``, so a bad day can neither silence the editor nor open the flood.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping

from peft_core.api_types import Eagerness, FeedbackRequest, Outcome
from peft_core.status_types import ServingLimit
from peft_daemon.completion.confidence import logistic

LEAST: Mapping[Eagerness, float] = {Eagerness.LOW: 0.3, Eagerness.MEDIUM: 0.06, Eagerness.HIGH: 0.01}
"""How likely a suggestion must be right; see docs/performance.md for what each costs and saves."""
MAX_OUTCOMES = 400
"""The newest outcomes decide; a day of work has some hundreds."""
MIN_OUTCOMES = 30
PRIOR_DEVIATION = (1.0, 0.5)
"""Standard deviations of the regression's offset and of its slope, around 0 and 1."""
NEWTON_STEPS = 20
STEP_TOLERANCE = 1e-6


class EagernessFromFeedback:
    """The outcomes of suggestions, and how sure the model must be because of them."""

    def __init__(self) -> None:
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=MAX_OUTCOMES)
        self._learned: float | None = None

    def remember(self, records: Iterable[FeedbackRequest]) -> None:
        """Take outcomes of earlier days into account, given in their order, before those that were noted."""
        earlier = deque((each for each in map(_outcome, records) if each), maxlen=MAX_OUTCOMES)
        self._outcomes = deque([*earlier, *self._outcomes], maxlen=MAX_OUTCOMES)
        self._learned = None

    def note(self, record: FeedbackRequest) -> None:
        """Take the outcome of a suggestion into account."""
        if (outcome := _outcome(record)) is not None:
            self._outcomes.append(outcome)
            self._learned = None

    @property
    def outcomes(self) -> int:
        """How many are taken into account."""
        return len(self._outcomes)

    def least(self, eagerness: Eagerness | None) -> float:
        """Return how likely a suggestion must be right to be shown; 0 shows everything."""
        if eagerness is None:
            return 0.0
        if eagerness is not Eagerness.AUTO:
            return LEAST[eagerness]
        if self._learned is None:
            self._learned = learned_least(self._outcomes)
        return self._learned

    def limit(self) -> ServingLimit:
        """Return what ``auto`` stands for now, in percent, with its reason."""
        why = f"learned from the last {self.outcomes} outcomes of suggestions"
        if self.outcomes < MIN_OUTCOMES:
            why = f"that of medium, until there are {MIN_OUTCOMES} outcomes of suggestions; there are {self.outcomes}"
        return ServingLimit("eagerness_auto_percent", round(100 * self.least(Eagerness.AUTO)), why)


def learned_least(outcomes: Iterable[tuple[float, bool]]) -> float:
    """Return the confidence from which on the user takes as many suggestions as ``medium`` expects to be right."""
    pairs = list(outcomes)
    if len(pairs) < MIN_OUTCOMES:
        return LEAST[Eagerness.MEDIUM]
    offset, slope = regression(pairs)
    wanted = _logit(LEAST[Eagerness.MEDIUM])
    found = logistic((wanted - offset) / max(slope, 0.1))
    return min(max(found, LEAST[Eagerness.HIGH]), LEAST[Eagerness.LOW])


def regression(outcomes: Iterable[tuple[float, bool]]) -> tuple[float, float]:
    """Fit the probability that a suggestion is taken to its confidence's log-odds; returns offset and slope."""
    pairs = [(_logit(confidence), float(taken)) for confidence, taken in outcomes]
    offset, slope = 0.0, 1.0
    stiff, stiff_slope = (1 / deviation**2 for deviation in PRIOR_DEVIATION)
    for _ in range(NEWTON_STEPS):
        # Gradient of the log-posterior, and its curvature: a symmetric matrix of two rows.
        up, up_slope = -stiff * offset, -stiff_slope * (slope - 1)
        first, mixed, last = stiff, 0.0, stiff_slope
        for odds, taken in pairs:
            likely = logistic(offset + slope * odds)
            spread = likely * (1 - likely)
            up += taken - likely
            up_slope += (taken - likely) * odds
            first, mixed, last = first + spread, mixed + spread * odds, last + spread * odds * odds
        determinant = first * last - mixed * mixed
        step = (last * up - mixed * up_slope) / determinant, (first * up_slope - mixed * up) / determinant
        offset, slope = offset + step[0], slope + step[1]
        if max(map(abs, step)) < STEP_TOLERANCE:
            break
    return offset, slope


def _outcome(record: FeedbackRequest) -> tuple[float, bool] | None:
    if record.confidence is None or record.next_edit:
        return None
    return record.confidence, record.outcome is not Outcome.REJECTED


def _logit(probability: float) -> float:
    bounded = min(max(probability, 1e-3), 1 - 1e-3)
    return math.log(bounded / (1 - bounded))
