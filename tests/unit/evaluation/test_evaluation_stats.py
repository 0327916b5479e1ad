"""Intervals and tests against published examples, and against what they promise."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_evaluation.report.schema import Comparison, Judgement
from peft_evaluation.scorers.metrics import MetricKind
from peft_evaluation.stats import SampleValues, adjust_p_values, compare, mcnemar, measure, measure_over_seeds

VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=40)


def values(numbers: list[float] | np.ndarray) -> SampleValues:  # type: ignore[type-arg]
    return {str(index): float(number) for index, number in enumerate(numbers)}


def against(a: list[float], b: list[float], kind: MetricKind = MetricKind.MEAN) -> Comparison:
    return compare(("a", values(a)), ("b", values(b)), "m", kind)


def with_p(*ps: float) -> list[Comparison]:
    one = against([1, 0], [0, 0])
    return [msgspec.structs.replace(one, strategy=str(n), p=p, p_adjusted=p) for n, p in enumerate(ps)]


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    # Newcombe 1998 (Statistics in Medicine 17), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_a_rate_has_wilson_s_interval(right: int, of: int, low: float, high: float) -> None:
    found = measure(values([1.0] * right + [0.0] * (of - right)), MetricKind.RATE)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert (found.value, found.count, found.interval) == (pytest.approx(right / of), of, "wilson")


def test_mcnemar_is_the_exact_test_on_what_differs() -> None:
    assert mcnemar(10, 2) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert mcnemar(0, 0) == mcnemar(7, 7) == 1.0
    assert mcnemar(3, 9) == mcnemar(9, 3)


def test_benjamini_and_hochberg_s_own_example_finds_their_four() -> None:
    # Benjamini and Hochberg 1995, section 3.2: of fifteen p-values the first four stand.
    ps = [
        *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240),
        *(0.4262, 0.5719, 0.6528, 0.7590, 1.0000),
    ]
    found = adjust_p_values(with_p(*ps))
    assert [each.judgement for each in found] == [Judgement.BETTER] * 4 + [Judgement.NO_DIFFERENCE] * 11
    assert all(each.p_adjusted >= each.p for each in found)


def test_nothing_to_adjust_is_nothing() -> None:
    assert adjust_p_values([]) == ()


@given(VALUES, st.randoms())
def test_a_mean_s_interval_holds_it_and_does_not_depend_on_the_order(numbers: list[float], random: object) -> None:
    found = measure(values(numbers), MetricKind.MEAN)
    assert found.low <= found.value <= found.high
    shuffled = list(numbers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = measure(values(shuffled), MetricKind.MEAN)
    assert (again.low, again.high) == (pytest.approx(found.low), pytest.approx(found.high))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_a_comparison_turned_round_says_the_opposite(pairs: list[tuple[float, float]]) -> None:
    a, b = [list(side) for side in zip(*pairs, strict=True)]
    one, other = against(a, b), against(b, a)
    assert one.difference == pytest.approx(-other.difference)
    assert (one.won, one.lost) == (other.lost, other.won)
    assert 0 <= one.p <= 1
    assert one.low <= one.difference <= one.high
    assert one.p == pytest.approx(other.p, abs=0.06)


def test_strategies_that_answer_the_same_do_not_differ() -> None:
    same = [0.1, 0.5, 0.9] * 10
    for kind in MetricKind:
        found = against(same, same, kind)
        assert (found.p, found.judgement, found.won, found.lost) == (1.0, Judgement.NO_DIFFERENCE, 0, 0)


def test_a_large_difference_is_found_and_its_direction_told() -> None:
    worse, better = [0.2, 0.3, 0.4] * 20, [0.4, 0.5, 0.6] * 20
    assert against(better, worse).judgement is Judgement.BETTER
    assert against(worse, better).judgement is Judgement.WORSE
    assert against(better, worse).test == "paired-permutation"


def test_rates_are_tested_exactly_unless_seeds_were_averaged() -> None:
    assert against([1, 0, 1], [0, 0, 1], MetricKind.RATE).test == "mcnemar-exact"
    assert against([1, 0.4, 1], [0, 0, 1], MetricKind.RATE).test == "paired-permutation"
    assert measure(values([1, 0.4]), MetricKind.RATE).interval == "bootstrap"


def test_few_items_cannot_show_more_than_there_are_ways_to_flip_them() -> None:
    assert against([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.0] * 6).p == pytest.approx(2 / 2**6)
    assert against([0.1, 0.2, 0.3], [0.0] * 3).judgement is Judgement.NO_DIFFERENCE


def test_a_report_can_be_written_with_any_figure() -> None:
    for kind in MetricKind:
        msgspec.json.encode((measure(values([0, 1, 1]), kind), *adjust_p_values([against([0, 1, 1], [1, 1, 0], kind)])))


def test_only_items_that_both_have_are_compared() -> None:
    found = compare(("a", {"1": 1.0, "2": 1.0}), ("b", {"2": 0.0, "3": 1.0}), "m", MetricKind.RATE)
    assert (found.difference, found.won, found.lost) == (1.0, 1, 0)
    with pytest.raises(ValueError, match="share no item"):
        compare(("a", {"1": 1.0}), ("b", {"2": 1.0}), "m", MetricKind.RATE)
    with pytest.raises(ValueError, match="no item"):
        measure({}, MetricKind.MEAN)


def test_the_bootstrap_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(7)
    held = 0
    for _ in range(150):
        found = measure(values(generator.beta(2, 3, size=80)), MetricKind.MEAN)
        held += found.low <= 0.4 <= found.high
    # Binomial(150, 0.95): below 134 or at 150 has a chance of 0.2 %.
    assert 134 <= held <= 149


def test_equal_strategies_are_told_apart_about_as_seldom_as_it_says() -> None:
    generator = np.random.default_rng(3)
    found = 0
    for _ in range(150):
        a, b = generator.beta(2, 3, size=(2, 60))
        found += against(list(a), list(b)).judgement is not Judgement.NO_DIFFERENCE
    assert 1 <= found <= 16


def test_of_one_seed_and_of_seeds_that_agree_the_interval_is_that_of_the_items() -> None:
    rate = [1.0] * 12 + [0.0] * 28
    for kind in MetricKind:
        assert measure_over_seeds([values(rate)], kind) == measure(values(rate), kind)
    assert measure_over_seeds([values(rate)] * 3, MetricKind.RATE) == measure(values(rate), MetricKind.RATE)


def test_seeds_that_differ_make_the_interval_wider_than_that_of_their_means() -> None:
    draw = np.random.default_rng(1)
    items = draw.normal(50, 5, 200)
    runs = [items + shift for shift in (-6.0, 0.0, 6.0)]
    found = measure_over_seeds([values(run) for run in runs], MetricKind.MEAN)
    of_means = measure(values(np.mean(runs, axis=0)), MetricKind.MEAN)
    assert (found.value, found.count) == (pytest.approx(of_means.value), 200)
    # The seeds' own share: the mean of three draws of -6, 0 and 6 has a standard deviation of 2.8.
    assert found.high - found.low > 4 * (of_means.high - of_means.low)
    assert found.low == pytest.approx(found.value - 2 * 2.8, abs=1.5)


def test_it_does_not_depend_on_the_order_of_items_and_seeds_and_leaves_out_items_that_a_seed_lacks() -> None:
    one, two = {"a": 1.0, "b": 4.0, "c": 9.0}, {"a": 2.0, "b": 3.0, "c": 5.0, "d": 100.0}
    backwards = dict(reversed(one.items()))
    found = measure_over_seeds([one, two], MetricKind.MEAN)
    assert found == measure_over_seeds([two, backwards], MetricKind.MEAN)
    assert (found.value, found.count) == (pytest.approx(4.0), 3)
    with pytest.raises(ValueError, match="no item"):
        measure_over_seeds([{"a": 1.0}, {"b": 1.0}], MetricKind.MEAN)
