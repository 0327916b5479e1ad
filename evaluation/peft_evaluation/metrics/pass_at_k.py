"""pass@k: the chance that one of k drawn answers passes, estimated without bias from n of them.

Chen et al. 2021 (arXiv 2107.03374), equation 1: 1 - C(n - c, k) / C(n, k), with c of n passing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb, nan

KS = (1, 2, 5, 10)


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
    return {f"pass@{k}": estimate(len(passed), sum(passed), k) for k in KS if k <= len(passed)}
