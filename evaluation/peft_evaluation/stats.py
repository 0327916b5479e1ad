"""Confidence intervals of metrics, and tests whether two strategies differ, without normal approximations.

A rate has Wilson's interval (1927), and two rates are compared by McNemar's exact test on the items where only one is
right. Other metrics have the percentile bootstrap over items (Efron 1979), paired for the difference of two strategies,
and the paired permutation test (which flips signs of differences): a bootstrap's p is far too small with few items (if
a strategy wins all six of six items, p cannot be below 0.03). Several strategies compared with one baseline on a metric
raise the chance of a false finding, which is corrected by Benjamini and Hochberg (1995). The unit is the item: with
several seeds, an item's value is the mean over the seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, false_discovery_control

from peft_evaluation.report.schema import Comparison, Judgement, Measure
from peft_evaluation.scorers.metrics import MetricKind
from peft_tuning.statistics import SIGNIFICANT, mcnemar, paired_permutation

CONFIDENCE = 0.95
RESAMPLES = 10_000
_BLOCK = 500
"""Resamples that are drawn at once, which limits the memory."""

SampleValues = Mapping[str, float]
"""The value of each item, by its id."""


def measure(values: SampleValues, kind: MetricKind, *, seed: int = 0) -> Measure:
    """Return the mean over items with its interval; raises ValueError without items.

    A rate whose items are not all 0 or 1 (means over seeds) gets the interval of a mean.
    """
    numbers = np.fromiter(values.values(), float)
    if not len(numbers):
        raise ValueError("no item has a value")
    mean = float(numbers.mean())
    if kind is MetricKind.RATE and _is_binary(numbers):
        interval = binomtest(int(numbers.sum()), len(numbers)).proportion_ci(CONFIDENCE, method="wilson")
        low, high = float(interval.low), float(interval.high)
        return Measure(value=mean, low=low, high=high, count=len(numbers), interval="wilson")
    low, high = _interval(_bootstrap_means(numbers, seed))
    return Measure(value=mean, low=min(low, mean), high=max(high, mean), count=len(numbers), interval="bootstrap")


def measure_over_seeds(runs: Sequence[SampleValues], kind: MetricKind, *, seed: int = 0) -> Measure:
    """Return the mean over items and seeds; ``runs`` has the values of each seed. Raises ValueError without items.

    The interval is the bootstrap's with items and seeds both drawn anew, as another run would have other seeds. Of one
    seed, and of a rate that is 0 or 1 on each item with all seeds, it is ``measure``'s. Items without a value for each
    seed are left out.
    """
    shared = sorted(set[str]().union(*runs).intersection(*runs))
    if not shared:
        raise ValueError("no item has a value for each seed")
    table = np.array([[run[item] for item in shared] for run in runs])
    means = dict(zip(shared, table.mean(axis=0).tolist(), strict=True))
    if len(runs) == 1 or (kind is MetricKind.RATE and _is_binary(np.array(list(means.values())))):
        return measure(means, kind, seed=seed)
    # Sorted by their values, so that the random draws do not depend on the order of items and seeds.
    table = table[np.argsort(table.mean(axis=1), kind="stable")]
    table = table[:, np.lexsort(table)]
    generator, seeds, items = np.random.default_rng(seed), *table.shape
    blocks = []
    for _ in range(RESAMPLES // _BLOCK):
        shares = generator.multinomial(seeds, [1 / seeds] * seeds, _BLOCK) / seeds
        drawn = generator.integers(0, items, (_BLOCK, items))
        blocks.append(np.take_along_axis(shares @ table, drawn, axis=1).mean(axis=1))
    mean, (low, high) = float(table.mean()), _interval(np.concatenate(blocks))
    return Measure(value=mean, low=min(low, mean), high=max(high, mean), count=items, interval="bootstrap")


def compare(
    strategy: tuple[str, SampleValues],
    baseline: tuple[str, SampleValues],
    metric: str,
    kind: MetricKind,
    *,
    seed: int = 0,
) -> Comparison:
    """Compare a strategy with a baseline, each given by name and values, on the items that both have a value for.

    p is not adjusted yet. Raises ValueError if they share no item.
    """
    (name, ours), (other, theirs) = strategy, baseline
    shared = [item for item in theirs if item in ours]
    if not shared:
        raise ValueError(f"{name} and {other} share no item")
    a, b = (np.array([values[item] for item in shared]) for values in (ours, theirs))
    # Sorted, so that the random draws do not depend on the order of the items.
    differences = np.sort(a - b)
    won, lost = int((differences > 0).sum()), int((differences < 0).sum())
    means = _bootstrap_means(differences, seed)
    low, high = _interval(means)
    if kind is MetricKind.RATE and _is_binary(a) and _is_binary(b):
        test, p = "mcnemar-exact", mcnemar(won, lost)
    else:
        test, p = "paired-permutation", paired_permutation(differences, seed=seed)
    mean = float(differences.mean())
    return Comparison(
        strategy=name,
        baseline=other,
        metric=metric,
        difference=mean,
        low=min(low, mean),
        high=max(high, mean),
        p=p,
        p_adjusted=p,
        test=test,
        judgement=_judgement(mean, p),
        won=won,
        lost=lost,
    )


def adjust_p_values(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Return all comparisons of a metric with p adjusted for their number, and judged by the adjusted p."""
    if not comparisons:
        return ()
    adjusted = false_discovery_control([each.p for each in comparisons], method="bh")
    return tuple(
        msgspec.structs.replace(each, p_adjusted=float(p), judgement=_judgement(each.difference, float(p)))
        for each, p in zip(comparisons, adjusted, strict=True)
    )


def _judgement(difference: float, p: float) -> Judgement:
    if p >= SIGNIFICANT or difference == 0:
        return Judgement.NO_DIFFERENCE
    return Judgement.BETTER if difference > 0 else Judgement.WORSE


def _is_binary(numbers: NDArray[np.float64]) -> bool:
    return bool(np.isin(numbers, (0.0, 1.0)).all())


def _bootstrap_means(numbers: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    # Sorted, so that the random draws do not depend on the order of the items.
    ordered = np.sort(numbers)
    blocks = [
        ordered[generator.integers(0, len(ordered), (_BLOCK, len(ordered)))].mean(axis=1)
        for _ in range(RESAMPLES // _BLOCK)
    ]
    return np.concatenate(blocks)


def _interval(means: NDArray[np.float64]) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)
