"""Exact tests for paired results: the same items, answered once without and once with a change.

The gate asks one-sided whether an adapter is better than the base; evaluation asks two-sided whether two strategies
differ. Both use the functions here, so a p-value means the same in a model card and in a report. Nothing is
approximated by a normal distribution, as there are often few items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, permutation_test

SIGNIFICANT = 0.05
"""A p-value below this counts as a difference."""
RESAMPLES = 9_999
"""Sign flips drawn where there are too many pairs to try all of them."""

Alternative = Literal["greater", "two-sided"]


def paired_permutation(
    differences: Sequence[float] | NDArray[np.float64], *, alternative: Alternative = "two-sided", seed: int = 0
) -> float:
    """Return the p-value of Fisher's paired permutation test on the sum of the differences.

    The null hypothesis is that the sign of each difference is random. The value is exact for few pairs and from
    ``RESAMPLES`` draws, seeded by ``seed``, for many. The draws follow the order of the differences: sort them where
    the order of the items must not matter. Without any difference the result is 1.
    """
    values = np.asarray(differences, dtype=np.float64)
    # Pairs without a difference change no sum; leaving them out makes small cases exact.
    values = values[values != 0]
    if len(values) < 2:  # scipy wants two samples; these are the exact values for none and one
        return 0.5 if alternative == "greater" and values.sum() > 0 else 1.0
    result = permutation_test(
        (values,),
        lambda flipped, axis: flipped.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        alternative=alternative,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def mcnemar(won: int, lost: int, *, alternative: Alternative = "two-sided") -> float:
    """Return the exact p-value of McNemar's test for items of which ``won`` became right and ``lost`` wrong.

    Items with the same outcome before and after do not count. Without a changed item the result is 1.
    """
    return float(binomtest(won, won + lost, alternative=alternative).pvalue) if won + lost else 1.0
