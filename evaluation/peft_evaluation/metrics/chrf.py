"""chrF and chrF++ (Popović 2015, 2017) as sacrebleu computes them, per item, from 0 to 100.

On Conala chrF follows human judgement best of the common metrics (arXiv 2208.03133). The figure of a strategy is the
mean over its items, not the corpus score, so that strategies can be compared item by item.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sacrebleu.metrics.chrf import CHRF


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
