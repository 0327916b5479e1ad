"""Items that a strategy wins or loses against another, on the first metric that the report has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from peft_evaluation.metrics.catalogue import METRICS
from peft_evaluation.results import ItemResult, Report


@dataclass(frozen=True)
class Flips:
    """Of one strategy, in the order of the items."""

    strategy: str
    gained: tuple[ItemResult, ...]
    lost: tuple[ItemResult, ...]


def headline(report: Report) -> str:
    """The metric that stands for all where only one can be shown: the first of the baseline."""
    return next(metric for metric in METRICS if metric in report.strategies[0].metrics)


def flips(report: Report) -> Sequence[Flips]:
    """Of every strategy but the baseline."""
    metric = headline(report)
    found = []
    for each in report.strategies:
        if each.id == report.baseline:
            continue
        change = {item.id: flip(item, each.id, report.baseline, metric) for item in report.items}
        found.append(
            Flips(
                each.id,
                tuple(item for item in report.items if change[item.id] > 0),
                tuple(item for item in report.items if change[item.id] < 0),
            )
        )
    return found


def flip(item: ItemResult, strategy: str, baseline: str, metric: str) -> float:
    """How much better a strategy did on an item than another; 0 where one has no value."""
    ours, theirs = (value(item, name, metric) for name in (strategy, baseline))
    return 0.0 if ours is None or theirs is None else ours - theirs


def value(item: ItemResult, strategy: str, metric: str) -> float | None:
    """The mean over a strategy's seeds; None where it has none."""
    found = [a.scores[metric] for a in item.answers if a.strategy == strategy and metric in a.scores]
    return fmean(found) if found else None


def first_text(item: ItemResult, strategy: str) -> str:
    """The best answer of the first seed; empty where there is none."""
    return next((a.texts[0] for a in item.answers if a.strategy == strategy and a.texts), "")
