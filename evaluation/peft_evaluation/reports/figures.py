"""How figures are written for people, the same in every kind of report."""

from __future__ import annotations

from peft_evaluation.metrics.catalogue import METRICS, Kind
from peft_evaluation.results import Comparison, Measure


def measured(metric: str, measure: Measure) -> str:
    """A value with its interval: ``41.7 % [24.5, 61.2]``, ``0.611 [0.48, 0.73]``."""
    value, low, high = (number(metric, each) for each in (measure.value, measure.low, measure.high))
    unit = " %" if _percent(metric) else ""
    return f"{value}{unit} [{low}, {high}]"


def named(metric: str, value: float) -> str:
    """A value with its unit: ``41.7 %``, ``0.611``."""
    return number(metric, value) + (" %" if _percent(metric) else "")


def difference(comparison: Comparison) -> str:
    """A difference with its interval and sign."""
    parts = (comparison.difference, comparison.low, comparison.high)
    value, low, high = (f"{'+' if each > 0 else ''}{number(comparison.metric, each)}" for each in parts)
    return f"{value} [{low}, {high}]"


def number(metric: str, value: float) -> str:
    """A bare value on the metric's scale: rates and pass@k in percent."""
    if _percent(metric):
        return f"{100 * value:.1f}"
    return f"{value:.1f}" if METRICS[metric].highest > 1 else f"{value:.3f}"


def probability(p: float) -> str:
    """``0.012``, ``< 0.001``."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def size(count: int | None) -> str:
    """Bytes."""
    if count is None:
        return "—"
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def duration(seconds: float | None) -> str:
    """Hours, minutes, seconds: the two largest that are not zero."""
    if seconds is None:
        return "—"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _percent(metric: str) -> bool:
    return METRICS[metric].kind is Kind.RATE or metric == "tests"
