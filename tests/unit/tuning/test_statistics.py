"""P-values of paired results: those of small cases can be counted by hand."""

from __future__ import annotations

import pytest

from peft_tuning.statistics import mcnemar, paired_permutation


def test_p_values_are_those_of_small_cases_counted_by_hand() -> None:
    # Six pairs, all better: one of 2**6 ways to choose signs is as extreme.
    assert paired_permutation([1.0] * 6, alternative="greater") == pytest.approx(1 / 64)
    assert paired_permutation([1.0] * 6) == pytest.approx(2 / 64)
    assert mcnemar(6, 0, alternative="greater") == pytest.approx(1 / 64)
    # Three gains and one loss: C(4,3) + C(4,4) = 5 of 16.
    assert mcnemar(3, 1, alternative="greater") == pytest.approx(5 / 16)
    assert mcnemar(10, 2) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert mcnemar(3, 9) == mcnemar(9, 3)


def test_no_difference_and_a_loss_are_never_significant() -> None:
    assert paired_permutation([0.0, 0.1], alternative="greater") == 0.5
    assert paired_permutation([0.0, -0.1], alternative="greater") == 1.0
    assert paired_permutation([0.0, 0.0], alternative="greater") == 1.0
    assert paired_permutation([0.0, 0.1]) == paired_permutation([]) == 1.0
    assert mcnemar(0, 0) == mcnemar(7, 7) == 1.0
    assert paired_permutation([-1.0] * 20, alternative="greater") > 0.99


def test_many_pairs_are_drawn_the_same_each_time() -> None:
    differences = [(-1) ** (n % 3 == 0) * (n % 7 + 1) / 7 for n in range(60)]
    drawn = paired_permutation(differences, alternative="greater", seed=3)
    assert drawn == paired_permutation(differences, alternative="greater", seed=3)
    assert 0 < drawn < 0.05
