"""The test that takes an adapter back: how often it is wrong, however often one looks, and how soon it sees a loss."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_daemon.learning.sequential import ALPHA, compare, evidence_after, evidence_of_loss


def drawn(rate: float, count: int, chance: random.Random) -> str:
    return "".join("1" if chance.random() < rate else "0" for _ in range(count))


@pytest.mark.parametrize(("before", "now"), [(0.3, 0.3), (0.05, 0.05), (0.8, 0.8), (0.15, 0.3), (0.3, 0.33)])
def test_an_adapter_that_is_no_worse_is_seldom_called_worse_by_somebody_who_looks_after_each_suggestion(
    before: float, now: float
) -> None:
    chance = random.Random(1)
    # The evidence is the largest one of all looks.
    alarms = sum(compare(drawn(before, 400, chance), drawn(now, 400, chance)).is_loss for _ in range(1_000))
    assert alarms / 1_000 <= ALPHA


def test_a_clear_loss_is_found_within_a_few_hundred_suggestions() -> None:
    chance = random.Random(2)
    needed = []
    for _ in range(100):
        before, now = drawn(0.3, 1_000, chance), drawn(0.15, 1_000, chance)
        needed.append(next((n for n in range(10, 1_000, 10) if compare(before[:n], now[:n]).is_loss), 1_000))
    assert statistics.median(needed) < 250
    assert sorted(needed)[90] < 600


@given(st.floats(0.01, 0.99), st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_the_next_block_never_raises_the_evidence_on_average_if_both_are_accepted_equally_often(
    rate: float, blocks: list[tuple[bool, bool]]
) -> None:
    """What makes it a test: each factor's mean is at most 1, whatever came before."""

    def last(*more: tuple[bool, bool]) -> float:
        return [*evidence_after([*blocks, *more])][-1]

    mean = sum(
        (rate if a else 1 - rate) * (rate if b else 1 - rate) * last((a, b))
        for a in (False, True)
        for b in (False, True)
    )
    assert mean <= last() * (1 + 1e-9)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=200))
def test_evidence_is_a_number_above_0(blocks: list[tuple[bool, bool]]) -> None:
    assert 1.0 <= evidence_of_loss(blocks) < 1e60


def test_suggestions_without_a_counterpart_are_no_evidence_and_the_words_have_both_shares() -> None:
    assert not compare("", "0" * 900).is_loss
    assert compare("1" * 900, "").evidence == 1.0
    found = compare("1" * 50 + "0" * 50, "0" * 95 + "1" * 5)
    assert found.is_loss and found.words == "accepted 5% of 100 now, 50% of 100 before"
    assert compare("", "").words == "accepted none of 0 now, none of 0 before"
