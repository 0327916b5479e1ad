"""Feedback is summed up by adapter and language."""

from __future__ import annotations

from peft_core.api_types import AdapterUse, FeedbackRequest, Outcome
from peft_daemon.feedback import FeedbackRow, summarize

MINE = AdapterUse("mine", "abc", 0.5)


def row(outcome: Outcome, adapter: AdapterUse | None = None, language: str = "python", **numbers: int) -> FeedbackRow:
    about = {"offer": "1", "model": "m", "suggestion": "0123456789", "shown": 10}
    record = FeedbackRequest(outcome=outcome, language=language, adapter=adapter, **about, **numbers)  # type: ignore[arg-type]
    return FeedbackRow(1, 0.0, None, record)


def test_nothing_is_no_line() -> None:
    assert summarize([]) == []


def test_each_adapter_and_language_has_its_shares_and_the_most_used_comes_first() -> None:
    rows = [
        row(Outcome.REJECTED, language="go"),
        row(Outcome.ACCEPTED, MINE, accepted=8, stood=10, kept=5),
        row(Outcome.PARTLY, MINE, accepted=4, stood=6, kept=6),
        row(Outcome.TYPED, MINE, stood=10, kept=10),
        row(Outcome.REJECTED, MINE),
    ]
    first, second = summarize(rows)
    assert (first.adapter, first.digest, first.language, first.offers) == ("mine", "abc", "python", 4)
    assert (first.accepted, first.partly, first.typed, first.rejected) == (0.25, 0.25, 0.25, 0.25)
    assert first.still_there == 11 / 16, "what was typed by hand says nothing about it"
    assert (first.characters_accepted, first.characters_shown) == (12, 40)
    assert (second.adapter, second.language, second.rejected, second.still_there) == ("base", "go", 1.0, None)
