"""The metrics: what reports and statistics need to know of each, and how the small ones are computed.

EM@k is the study's: the reference is among the k best beams, white space aside (arXiv 2308.10462). Nothing is drawn, so
nothing is estimated. pass@k is estimated without bias from n drawn answers (Chen et al. 2021, arXiv 2107.03374). chrF
and chrF++ (Popović 2015, 2017) are sacrebleu's, per sample, from 0 to 100: a strategy has the mean over its
samples, not the corpus score, so that strategies can be compared sample by sample.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from math import comb, nan
from typing import TYPE_CHECKING

from rapidfuzz.distance import Levenshtein

if TYPE_CHECKING:
    from sacrebleu.metrics.chrf import CHRF


class MetricKind(StrEnum):
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
    kind: MetricKind
    highest: float = 1.0
    part_of: str = ""
    """Another metric's id: a part is shown apart, and is not compared."""


_METRICS = (
    *(Metric(f"em@{k}", f"exact match, top {k}", MetricKind.RATE) for k in (1, 2, 5, 10)),
    *(Metric(f"pass@{k}", f"passes the tests, best of {k}", MetricKind.RATE) for k in (1, 2, 5, 10)),
    Metric("chrf", "chrF", MetricKind.MEAN, 100.0),
    Metric("chrf++", "chrF++", MetricKind.MEAN, 100.0),
    Metric("codebleu", "CodeBLEU", MetricKind.MEAN),
    Metric("codebleu-ngram", "n-grams", MetricKind.MEAN, part_of="codebleu"),
    Metric("codebleu-weighted", "weighted n-grams", MetricKind.MEAN, part_of="codebleu"),
    Metric("codebleu-syntax", "syntax", MetricKind.MEAN, part_of="codebleu"),
    Metric("codebleu-dataflow", "data flow", MetricKind.MEAN, part_of="codebleu"),
    Metric("similarity", "edit similarity", MetricKind.MEAN),
    Metric("syntax", "valid Python", MetricKind.RATE),
    Metric("tests", "part of the tests passed", MetricKind.MEAN),
    Metric("strict", "all tests passed", MetricKind.RATE),
)
METRICS: Mapping[str, Metric] = {metric.id: metric for metric in _METRICS}
"""In the order they are shown."""
WHOLES = tuple(metric.id for metric in _METRICS if not metric.part_of)
"""Those that are no part of another one, in the same order."""


EXACT_MATCH_KS = (1, 2, 5, 10)


def exact_match(candidates: Sequence[str], reference: str) -> Mapping[str, float]:
    """``em@k`` for each k of ``KS`` for which there are that many candidates: 0 or 1."""
    wanted = normalized(reference)
    hits = [normalized(candidate) == wanted for candidate in candidates]
    return {f"em@{k}": float(any(hits[:k])) for k in EXACT_MATCH_KS if k <= len(hits)}


def normalized(code: str) -> str:
    """All runs of white space as one space, none at the ends."""
    return " ".join(code.split())


PASS_AT_KS = (1, 2, 5, 10)


def estimate(n: int, c: int, k: int) -> float:
    """The estimate for one problem; NaN with fewer than k answers. Raises ValueError unless 0 <= c <= n and k >= 1."""
    if not 0 <= c <= n or k < 1:
        raise ValueError(f"pass@{k} with {c} of {n} passing")
    if n < k:
        return nan
    # Whole numbers of any size: no rounding until the division.
    return 1.0 - comb(n - c, k) / comb(n, k)


def pass_at_k(passed: Sequence[bool]) -> Mapping[str, float]:
    """``pass@k`` for each k of ``KS`` for which there are that many answers."""
    return {f"pass@{k}": estimate(len(passed), sum(passed), k) for k in PASS_AT_KS if k <= len(passed)}


def chrf(candidate: str, reference: str) -> Mapping[str, float]:
    """``chrf`` (characters up to 6 in a row) and ``chrf++`` (with words up to 2)."""
    return {
        name: float(_scorer(words).sentence_score(candidate, [reference]).score)
        for name, words in (("chrf", 0), ("chrf++", 2))
    }


@cache
def _scorer(words: int) -> CHRF:
    from sacrebleu.metrics.chrf import CHRF  # noqa: PLC0415  (a third of a second)

    return CHRF(word_order=words)


def similarity(candidate: str, reference: str) -> Mapping[str, float]:
    """``similarity``; white space at the ends does not count."""
    return {"similarity": Levenshtein.normalized_similarity(candidate.rstrip(), reference.rstrip())}


def syntax(text: str) -> Mapping[str, float]:
    """``syntax``: 1 if Python parses ``text`` and there is something in it, else 0."""
    if not text.strip():
        return {"syntax": 0.0}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {"syntax": 0.0}
    return {"syntax": 1.0}
