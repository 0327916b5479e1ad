"""How sure the model must be follows what the user took, within bounds."""

from __future__ import annotations

import random

import msgspec
import pytest

from peft_core.api_types import Eagerness, FeedbackRequest, Outcome
from peft_daemon.completion.eagerness import LEAST, MAX_OUTCOMES, MIN_OUTCOMES, EagernessFromFeedback, regression


def record(confidence: float | None, outcome: Outcome, offer: str = "o") -> FeedbackRequest:
    return FeedbackRequest(
        offer=offer, outcome=outcome, language="python", suggestion="", shown=10, model="m", confidence=confidence
    )


def used(share: float, count: int = 200) -> EagernessFromFeedback:
    """Somebody who took this share of what was shown, whatever its confidence."""
    chance, eagerness = random.Random(1), EagernessFromFeedback()
    for _ in range(count):
        outcome = Outcome.ACCEPTED if chance.random() < share else Outcome.REJECTED
        eagerness.note(record(chance.uniform(0.4, 0.95), outcome))
    return eagerness


def test_each_step_shows_more_than_the_one_before() -> None:
    eagerness = EagernessFromFeedback()
    levels = [eagerness.least(each) for each in (Eagerness.LOW, Eagerness.MEDIUM, Eagerness.HIGH, None)]
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] == 0.0, "what is asked for by hand is always shown"


def test_auto_is_medium_until_outcomes_say_otherwise() -> None:
    assert EagernessFromFeedback().least(Eagerness.AUTO) == LEAST[Eagerness.MEDIUM]
    assert used(0.0, MIN_OUTCOMES - 1).least(Eagerness.AUTO) == LEAST[Eagerness.MEDIUM]


def test_who_takes_little_sees_less_and_who_takes_much_sees_more() -> None:
    little, much = used(0.05).least(Eagerness.AUTO), used(0.95).least(Eagerness.AUTO)
    assert LEAST[Eagerness.MEDIUM] < little <= LEAST[Eagerness.LOW]
    assert LEAST[Eagerness.HIGH] <= much < LEAST[Eagerness.MEDIUM]


def test_the_newest_outcomes_decide() -> None:
    eagerness = used(0.05)
    for _ in range(MAX_OUTCOMES):
        eagerness.note(record(0.5, Outcome.ACCEPTED))
    assert eagerness.outcomes == MAX_OUTCOMES
    assert eagerness.least(Eagerness.AUTO) < LEAST[Eagerness.MEDIUM]


def test_outcomes_of_earlier_days_count_and_those_without_a_confidence_do_not() -> None:
    eagerness = EagernessFromFeedback()
    eagerness.note(record(0.5, Outcome.ACCEPTED))
    eagerness.remember([record(0.7, Outcome.REJECTED), record(None, Outcome.ACCEPTED)])
    assert eagerness.outcomes == 2


def test_outcomes_of_next_edits_do_not_count() -> None:
    eagerness = EagernessFromFeedback()
    eagerness.note(msgspec.structs.replace(record(0.5, Outcome.ACCEPTED), next_edit=True))
    assert eagerness.outcomes == 0


def test_the_regression_finds_what_the_outcomes_were_drawn_from() -> None:
    chance = random.Random(7)
    confidences = [chance.uniform(0.05, 0.95) for _ in range(4000)]
    offset, slope = regression((each, chance.random() < each) for each in confidences)
    assert (offset, slope) == (pytest.approx(0.0, abs=0.15), pytest.approx(1.0, abs=0.15))
