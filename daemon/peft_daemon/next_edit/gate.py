"""How likely a next edit is right, and whether that suffices to show it.

A logistic regression over what is known of the draft: the log-probabilities of the lines that change, how many lines
these are, and how far they lie from the cursor. An edit interrupts more than a completion does, so more is asked for.
The weights are fitted to scenarios of public histories (``benchmarks/next_edit_gate.py``; docs/next-edit.md).
"""

from __future__ import annotations

from typing import NamedTuple

from peft_core.api_types import Eagerness
from peft_daemon.completion.confidence import logistic
from peft_daemon.next_edit.answer import EditDraft

RENAMING_CONFIDENCE = 0.55
"""How often the commit did the same to the nearest use of a renamed name (docs/next-edit.md)."""


class GateWeights(NamedTuple):
    """Of the logistic regression."""

    bias: float
    total: float
    """For each nat of the lines that change."""
    unknown: float
    """For each token without a probability: the engine had guessed and confirmed it."""
    lines: float
    """For each line of the change."""
    distant: float
    """For a change that is not around the cursor."""


WEIGHTS = GateWeights(bias=1.0, total=1.2, unknown=-0.1, lines=-0.3, distant=-0.5)

LEAST: dict[Eagerness | None, float] = {
    None: 0.0,
    Eagerness.LOW: 0.7,
    Eagerness.MEDIUM: 0.5,
    Eagerness.AUTO: 0.5,
    Eagerness.HIGH: 0.3,
}
"""The least confidence at which an edit is shown."""


def confidence(draft: EditDraft, cursor: int, weights: GateWeights = WEIGHTS) -> float:
    """Return how likely a draft's change is right, from 0 to 1; ``cursor`` is the cursor's line."""
    if draft.change is None:
        return 0.0
    change, found = draft.change, draft.found
    logit = (
        weights.bias
        + weights.total * found.total
        + weights.unknown * found.unknown
        + weights.lines * max(len(change.old), len(change.new))
        + weights.distant * (not draft.place.start <= cursor < draft.place.end)
    )
    return logistic(logit)
