"""The first two parts: BLEU of the words, and its recall with Python's keywords counted five times as much.

Words are what white space separates. Precisions of zero count as 0.1 matches (Chen and Cherry 2014, method 1).
"""

from __future__ import annotations

import keyword
import math
from collections import Counter
from collections.abc import Mapping, Sequence

LONGEST = 4
NOTHING = 0.1
"""Matches where there are none."""
PLAIN = 0.2
"""Weight of a word that is no keyword."""
KEYWORDS = frozenset(keyword.kwlist) | {"match", "case", "type"}
REFERENCE_LENGTH = 2
"""For the brevity of the second part: the package takes the pair of words and weights for the words."""

Words = Sequence[str]


def bleu(reference: Words, candidate: Words) -> float:
    """BLEU-4 of one sentence."""
    parts = [_precision(reference, candidate, n) for n in range(1, LONGEST + 1)]
    return _score(_brevity(len(reference), len(candidate)), parts)


def weighted_recall(reference: Words, candidate: Words) -> float:
    """The same with recall in place of precision, its single words weighted."""
    weights = {word: 1.0 if word in KEYWORDS else PLAIN for word in reference}
    parts = [_recall(reference, candidate, n, weights if n == 1 else {}) for n in range(1, LONGEST + 1)]
    return _score(_brevity(REFERENCE_LENGTH, len(candidate)), parts)


def _score(brevity: float, parts: Sequence[tuple[float, float]]) -> float:
    if parts[0][0] == 0:
        return 0.0
    logs = [math.log((matched or NOTHING) / of) / LONGEST for matched, of in parts]
    return brevity * math.exp(math.fsum(logs))


def _brevity(reference: int, candidate: int) -> float:
    if candidate > reference:
        return 1.0
    return math.exp(1 - reference / candidate) if candidate else 0.0


def _precision(reference: Words, candidate: Words, n: int) -> tuple[float, float]:
    theirs, ours = _ngrams(reference, n), _ngrams(candidate, n)
    return sum((ours & theirs).values()), max(1, sum(ours.values()))


def _recall(reference: Words, candidate: Words, n: int, weights: Mapping[str, float]) -> tuple[float, float]:
    theirs, ours = _ngrams(reference, n), _ngrams(candidate, n)
    return _sum(theirs & ours, weights), max(1, _sum(theirs, weights))


def _sum(counts: Counter[tuple[str, ...]], weights: Mapping[str, float]) -> float:
    return sum(count * (weights[ngram[0]] if weights else 1) for ngram, count in counts.items())


def _ngrams(words: Words, n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
