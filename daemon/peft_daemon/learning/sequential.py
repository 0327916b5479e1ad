"""A test that may be looked at after each suggestion: is an adapter accepted less often than the one before it?

It is the safe test for two proportions of Turner, Ly and Grünwald ("Generic E-variables for exact sequential k-sample
tests that allow for optional stopping", arXiv 2106.02693) with blocks of one suggestion of each adapter. Let the
alternative be rates m(1 + r) before and m(1 - r) now. A block with outcomes a (before) and b (now) multiplies the
evidence by (1 + (a - m) d)(1 - (b - m) d), where d = r / (1 - m). If both rates are p, the expected factor is
1 - ((p - m) d)², so at most 1; if the newer one is accepted more often, it is smaller still. So the evidence exceeds
1 / alpha with a probability of at most alpha, however often one looks (Ville's inequality). ``m`` is estimated from
earlier blocks, and the evidence is the mean over several ``r``; both keep that property.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ALPHA = 0.05
"""Probability that an adapter that is no worse is ever called worse."""
LOSSES = (0.15, 0.3, 0.5)
"""The alternatives: by which share of their mean the two rates differ from it."""
PRIOR_RATE, PRIOR_BLOCKS = 0.3, 4.0
"""The mean rate that is assumed at first, and how many blocks that counts for."""
MIN_RATE, MAX_RATE = 0.02, 0.9


@dataclass(frozen=True)
class AcceptanceComparison:
    """The acceptance of two adapters, and the evidence that the newer one is accepted less often."""

    before: tuple[int, int]
    """Accepted and settled suggestions of the adapter before."""
    now: tuple[int, int]
    evidence: float

    @property
    def is_loss(self) -> bool:
        """Whether the newer adapter is accepted less often, at ``ALPHA``."""
        return self.evidence >= 1 / ALPHA

    @property
    def words(self) -> str:
        """The two shares as words for people."""
        return f"accepted {_share(*self.now)} now, {_share(*self.before)} before"


def compare(before: str, now: str) -> AcceptanceComparison:
    """Compare the outcomes of two adapters, oldest first: ``1`` for an accepted suggestion, ``0`` for a rejected one.

    Suggestions of one adapter without a counterpart among the other's are no evidence yet.
    """
    return AcceptanceComparison(
        (before.count("1"), len(before)),
        (now.count("1"), len(now)),
        evidence_of_loss((a == "1", b == "1") for a, b in zip(before, now, strict=False)),
    )


def evidence_of_loss(blocks: Iterable[tuple[bool, bool]]) -> float:
    """Return the largest evidence reached while the blocks (before, now) came in: 1 / alpha decides."""
    return max(evidence_after(blocks))


def evidence_after(blocks: Iterable[tuple[bool, bool]]) -> Iterator[float]:
    """Yield the evidence before the first block, and after each."""
    products = [1.0] * len(LOSSES)
    accepted, count = PRIOR_RATE * 2 * PRIOR_BLOCKS, 2 * PRIOR_BLOCKS
    yield 1.0
    for before, now in blocks:
        mean = min(MAX_RATE, max(MIN_RATE, accepted / count))
        for index, loss in enumerate(LOSSES):
            # Both rates of the alternative stay below 1.
            slope = min(loss, 0.95 * (1 - mean) / mean) / (1 - mean)
            products[index] *= (1 + (before - mean) * slope) * (1 - (now - mean) * slope)
        accepted, count = accepted + before + now, count + 2
        yield sum(products) / len(products)


def _share(accepted: int, settled: int) -> str:
    return f"{accepted / settled:.0%} of {settled}" if settled else "none of 0"
