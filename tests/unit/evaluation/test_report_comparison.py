"""Two reports of the same items, before and after a change."""

from __future__ import annotations

import msgspec
import pytest

from peft_core.errors import InvalidInput
from peft_evaluation.report.builder import compare_reports, compare_strategies
from peft_evaluation.report.schema import Judgement, Report, ReportedSample, Score
from peft_evaluation.scorers.metrics import WHOLES
from support.evaluation_report import finished_report


@pytest.fixture(scope="module")
def before() -> Report:
    return finished_report()


def improved(report: Report) -> Report:
    """zero-shot is right on the first twelve items, the rest is as it was."""

    def better(answer: Score, index: int) -> Score:
        if answer.strategy != "zero-shot" or index >= 12:
            return answer
        return msgspec.structs.replace(answer, scores={**answer.scores, "em@1": 1.0})

    items = tuple(
        ReportedSample(
            id=item.id,
            question=item.question,
            reference=item.reference,
            answers=tuple(better(answer, index) for answer in item.answers),
        )
        for index, item in enumerate(report.items)
    )
    return msgspec.structs.replace(report, items=items)


def test_what_changed_is_found_and_nothing_else(before: Report) -> None:
    found = {(each.strategy, each.metric): each for each in compare_reports(before, improved(before))}
    assert len(found) == sum(len(strategy.metrics.keys() & set(WHOLES)) for strategy in before.strategies)
    changed = found.pop(("zero-shot", "em@1"))
    assert (changed.won, changed.lost, changed.judgement) == (12, 0, Judgement.BETTER)
    assert changed.difference == pytest.approx(0.6)
    assert {each.judgement for each in found.values()} == {Judgement.NO_DIFFERENCE}


def test_the_other_way_round_it_is_worse(before: Report) -> None:
    found = {(each.strategy, each.metric): each for each in compare_reports(improved(before), before)}
    assert found["zero-shot", "em@1"].judgement is Judgement.WORSE


def test_other_items_are_not_compared(before: Report) -> None:
    other = msgspec.structs.replace(before, data=msgspec.structs.replace(before.data, digest="f" * 64))
    with pytest.raises(InvalidInput, match="not of the same items"):
        compare_reports(before, other)


def test_reports_without_a_common_strategy_are_not_compared(before: Report) -> None:
    first, last = (
        msgspec.structs.replace(before, strategies=part) for part in (before.strategies[:1], before.strategies[2:])
    )
    with pytest.raises(InvalidInput, match="share no strategy"):
        compare_reports(first, last)


def test_strategies_of_one_report_are_held_against_any_of_them(before: Report) -> None:
    found = {(each.strategy, each.metric): each for each in compare_strategies(before, "icl-1")}
    assert {strategy for strategy, _ in found} == {"zero-shot", "adapter:mine"}
    assert {metric for _, metric in found} == set(before.strategies[0].metrics) & set(WHOLES)
    adapter, base = found["adapter:mine", "em@1"], found["zero-shot", "em@1"]
    # The examples' answers are right half of the time with one of two seeds.
    assert (adapter.difference, base.difference) == (pytest.approx(0.75), pytest.approx(-0.25))
    assert (adapter.judgement, base.judgement) == (Judgement.BETTER, Judgement.WORSE)
    assert adapter.p_adjusted >= adapter.p


@pytest.mark.parametrize("name", ["icl-3", ""])
def test_a_strategy_that_is_not_there_is_no_baseline(before: Report, name: str) -> None:
    with pytest.raises(InvalidInput, match=f"nothing can be compared with '{name}'"):
        compare_strategies(before, name)
