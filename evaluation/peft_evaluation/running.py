"""What each strategy has reached so far, while items are still being answered."""

from __future__ import annotations

from collections.abc import Mapping

from peft_evaluation.generating import Answered
from peft_evaluation.items import ItemSet
from peft_evaluation.scoring import scores

SHOWN = ("em@1", "chrf", "similarity", "syntax")
"""Of what needs no running."""


class Tally:
    """Means over the answers there are; the report's may differ, since it weighs all items alike."""

    def __init__(self, items: ItemSet) -> None:
        self._items = {item.id: item for item in items.items}
        self._sums: dict[str, dict[str, float]] = {}
        self._counts: dict[str, dict[str, int]] = {}

    def add(self, answered: Answered) -> Mapping[str, float]:
        """Count one more; the means of its strategy by metric. Answers to other items count nothing."""
        sums = self._sums.setdefault(answered.strategy, {})
        counts = self._counts.setdefault(answered.strategy, {})
        if (item := self._items.get(answered.item)) is not None:
            for metric, value in scores(item, answered.given.texts).items():
                if metric in SHOWN:
                    sums[metric] = sums.get(metric, 0.0) + value
                    counts[metric] = counts.get(metric, 0) + 1
        return {metric: sums[metric] / counts[metric] for metric in SHOWN if metric in sums}
