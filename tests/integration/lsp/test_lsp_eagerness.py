"""What the model is too unsure of is not shown while somebody types; who asks by hand sees it."""

from __future__ import annotations

import pytest

from peft_core.api_types import Outcome
from peft_core.decisions import Decider
from peft_daemon.feedback import FeedbackStore
from support.editor import editor
from support.played_daemon import GUESSED, KNOWN, Played

URI = "file:///project/demo.py"
ANSWERS = {"wild = ": f"{GUESSED}guess", "plain = ": f"{KNOWN}answer", "mute = ": "unknown"}


@pytest.mark.parametrize("eagerness", [None, "low", "high"])
async def test_a_guess_is_a_silence_unless_it_was_asked_for(played: Played, eagerness: str | None) -> None:
    played.model.answers(ANSWERS)
    settings = {"showAfterMs": 0, **({"eagerness": eagerness} if eagerness else {})}
    async with editor(played.environ, settings=settings) as one:
        await one.ready()
        one.open(URI, "wild = \nplain = \nmute = \n")
        assert await one.inline(URI, 0, 7, automatic=True) == []
        told = await one.command("peft-daemon.why")
        assert told["silent"] is not None, told
        assert told["silent"]["decision"]["decider"] == Decider.UNSURE
        assert f"({eagerness or 'auto'}" in told["silent"]["words"]
        (by_hand,) = await one.inline(URI, 0, 7)
        assert by_hand.insert_text == "guess"
        (sure,) = await one.inline(URI, 1, 8, automatic=True)
        assert sure.insert_text == "answer"
        (mute,) = await one.inline(URI, 2, 7, automatic=True)
        assert mute.insert_text == "unknown", "a model that tells no probabilities is not silenced"


async def test_an_outcome_is_recorded_with_how_sure_the_model_was(played: Played) -> None:
    played.model.answers(ANSWERS)
    async with editor(played.environ, settings={"showAfterMs": 0}) as one:
        await one.ready()
        one.open(URI, "plain = \n")
        (item,) = await one.inline(URI, 0, 8, automatic=True)
        one.edit(URI, (0, 8), (0, 8), str(item.insert_text))
        assert await one.leave() == 0
    (row,) = FeedbackStore(played.paths.feedback_file).rows()
    assert row.record.outcome is Outcome.ACCEPTED
    assert row.record.confidence is not None
    assert row.record.confidence > 0.5
