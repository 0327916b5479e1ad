"""What is known of each metric besides how it is computed: reports and statistics treat all by this alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How the values of items come together."""

    RATE = "rate"
    """Yes or no per item: Wilson's interval, McNemar's test.

    Items may have a share instead: of several seeds or draws.
    """
    MEAN = "mean"
    """A number per item: the bootstrap over items."""


@dataclass(frozen=True)
class Metric:
    """One figure per answer; larger is better, from 0 to ``highest``."""

    id: str
    label: str
    kind: Kind
    highest: float = 1.0
    part_of: str = ""
    """Another metric's id: a part is shown apart, and is not compared."""


_METRICS = (
    *(Metric(f"em@{k}", f"exact match, top {k}", Kind.RATE) for k in (1, 2, 5, 10)),
    *(Metric(f"pass@{k}", f"passes the tests, best of {k}", Kind.RATE) for k in (1, 2, 5, 10)),
    Metric("chrf", "chrF", Kind.MEAN, 100.0),
    Metric("chrf++", "chrF++", Kind.MEAN, 100.0),
    Metric("codebleu", "CodeBLEU", Kind.MEAN),
    Metric("codebleu-ngram", "n-grams", Kind.MEAN, part_of="codebleu"),
    Metric("codebleu-weighted", "weighted n-grams", Kind.MEAN, part_of="codebleu"),
    Metric("codebleu-syntax", "syntax", Kind.MEAN, part_of="codebleu"),
    Metric("codebleu-dataflow", "data flow", Kind.MEAN, part_of="codebleu"),
    Metric("similarity", "edit similarity", Kind.MEAN),
    Metric("syntax", "valid Python", Kind.RATE),
    Metric("tests", "part of the tests passed", Kind.MEAN),
    Metric("strict", "all tests passed", Kind.RATE),
)
METRICS: Mapping[str, Metric] = {metric.id: metric for metric in _METRICS}
"""In the order they are shown."""
WHOLES = tuple(metric.id for metric in _METRICS if not metric.part_of)
"""Those that are no part of another one, in the same order."""
