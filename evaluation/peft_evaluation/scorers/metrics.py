"""The metrics: their names and kinds for reports and statistics, and the functions that compute the simple ones.

EM@k (arXiv 2308.10462) is 1 if the reference is among the k best answers of beam search, apart from white space. pass@k
is an unbiased estimate from n sampled answers (Chen et al. 2021, arXiv 2107.03374). chrF and chrF++ (Popović 2015,
2017) are computed by sacrebleu per sample, from 0 to 100; a strategy has the mean over its samples, not the corpus
score, so that strategies can be compared sample by sample. Of CodeBLEU, whose corpus score is what is published, a
report has both.
"""

from __future__ import annotations

import ast
import re
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
    """How items' values are combined, which decides the interval and the test."""

    RATE = "rate"
    """Yes or no per item: Wilson's interval, McNemar's test. With several seeds or samples an item has a share."""
    MEAN = "mean"
    """A number per item: bootstrap over items, permutation test."""


@dataclass(frozen=True)
class Metric:
    """A metric of an answer, from 0 to ``highest``; larger is better."""

    id: str
    label: str
    kind: MetricKind
    highest: float = 1.0
    part_of: str = ""
    """Id of the metric that this is a part of; parts have a table of their own and are not compared."""


CODE_BLEU_OF_ALL = "codebleu-corpus"
"""CodeBLEU of all answers of a strategy as one text, as it is published."""
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
    Metric(CODE_BLEU_OF_ALL, "all answers as one text", MetricKind.MEAN, part_of="codebleu"),
    Metric("similarity", "edit similarity", MetricKind.MEAN),
    Metric("syntax", "valid Python", MetricKind.RATE),
    Metric("tests", "part of the tests passed", MetricKind.MEAN),
    Metric("strict", "all tests passed", MetricKind.RATE),
)
METRICS: Mapping[str, Metric] = {metric.id: metric for metric in _METRICS}
"""All metrics by id, in the order in which they are shown."""
WHOLES = tuple(metric.id for metric in _METRICS if not metric.part_of)
"""Ids of the metrics that are not part of another one, in the same order."""


EXACT_MATCH_KS = (1, 2, 5, 10)


def exact_match(candidates: Sequence[str], reference: str) -> Mapping[str, float]:
    """Return ``em@k``, 0 or 1, for each k of ``EXACT_MATCH_KS`` for which there are enough candidates."""
    wanted = normalized(reference)
    hits = [normalized(candidate) == wanted for candidate in candidates]
    return {f"em@{k}": float(any(hits[:k])) for k in EXACT_MATCH_KS if k <= len(hits)}


_STRING_OR_SPACE = re.compile(
    r"""(\"{3}(?:[^\\]|\\.)*?\"{3}|'{3}(?:[^\\]|\\.)*?'{3}|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|\#[^\n]*|\s+""",
    re.DOTALL,
)


def normalized(code: str) -> str:
    """Return code with each run of white space outside strings replaced by one space, and none at the ends."""
    return _STRING_OR_SPACE.sub(lambda found: found[1] or " ".join(found[0].split()) or " ", code).strip()


PASS_AT_KS = (1, 2, 5, 10)


def estimate_pass_at_k(n: int, c: int, k: int) -> float:
    """Return the estimate of pass@k for one problem, of whose n answers c passed; NaN if n < k.

    Raises ValueError unless 0 <= c <= n and k >= 1.
    """
    if not 0 <= c <= n or k < 1:
        raise ValueError(f"pass@{k} with {c} of {n} passing")
    if n < k:
        return nan
    # Exact integers: there is no rounding before the division.
    return 1.0 - comb(n - c, k) / comb(n, k)


def pass_at_k(passed: Sequence[bool]) -> Mapping[str, float]:
    """Return ``pass@k`` for each k of ``PASS_AT_KS`` for which there are enough answers."""
    return {f"pass@{k}": estimate_pass_at_k(len(passed), sum(passed), k) for k in PASS_AT_KS if k <= len(passed)}


def chrf(candidate: str, reference: str) -> Mapping[str, float]:
    """Return ``chrf`` (n-grams of up to 6 characters) and ``chrf++`` (also n-grams of up to 2 words)."""
    return {
        name: float(_scorer(words).sentence_score(candidate, [reference]).score)
        for name, words in (("chrf", 0), ("chrf++", 2))
    }


@cache
def _scorer(words: int) -> CHRF:
    from sacrebleu.metrics.chrf import CHRF  # noqa: PLC0415  (a third of a second)

    return CHRF(word_order=words)


def similarity(candidate: str, reference: str) -> Mapping[str, float]:
    """Return ``similarity``; white space at the ends is ignored."""
    return {"similarity": Levenshtein.normalized_similarity(candidate.rstrip(), reference.rstrip())}


def syntax(text: str) -> Mapping[str, float]:
    """Return ``syntax``: 1 if ``text`` is valid Python and not empty, else 0."""
    if not text.strip():
        return {"syntax": 0.0}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {"syntax": 0.0}
    return {"syntax": 1.0}
