"""Scores are counted while an evaluation goes on."""

from __future__ import annotations

from peft_evaluation.scorers.scoring import Tally
from support.evaluation_report import ITEMS, answered


def test_scores_are_those_of_a_strategy_so_far() -> None:
    tally = Tally(ITEMS)
    assert tally.add(answered("zero-shot", 0, "x0()"))["em@1"] == 1.0
    assert tally.add(answered("icl-1", 0, "y("))["em@1"] == 0.0
    after = tally.add(answered("zero-shot", 1, "x1("))
    assert (after["em@1"], after["syntax"]) == (0.5, 0.5)
    assert 0 < after["chrf"] < 100
    assert tally.add(answered("zero-shot", 99, "x1(")) == after
