"""Escape, scopes and alternatives: real server and real daemon, whose model is played."""

from __future__ import annotations

import asyncio

import pytest

from peft_core.api_types import Outcome
from peft_core.decisions import Decider
from peft_daemon.feedback import FeedbackStore
from support.editor import editor
from support.played_daemon import HERE, OR, Played

URI = "file:///project/demo.py"


async def test_what_was_refused_does_not_come_back_unless_it_is_asked_for(played: Played) -> None:
    played.model.answers({"total = ": "sum(values)", "other = ": "sum(values)"})
    async with editor(played.environ, settings={"showAfterMs": 0}) as one:
        await one.ready()
        one.open(URI, "total = \nother = \n")
        assert await one.inline(URI, 0, 8, automatic=True)
        one.dismiss(URI, 0, 8)
        assert await one.inline(URI, 0, 8, automatic=True) == []
        told = await one.command("peft-daemon.why")
        assert told["silent"]["decision"]["decider"] == Decider.DISMISSED
        one.edit(URI, (0, 8), (0, 8), "s")
        assert await one.inline(URI, 0, 9, automatic=True) == [], "nor when it is typed along"
        (elsewhere,) = await one.inline(URI, 1, 8, automatic=True)
        assert elsewhere.insert_text == "sum(values)"
        (by_hand,) = await one.inline(URI, 0, 9)
        assert by_hand.insert_text == "um(values)"
        assert await one.leave() == 0
    outcomes = [row.record.outcome for row in FeedbackStore(played.paths.feedback_file).rows()]
    assert outcomes[0] is Outcome.REJECTED, "a refusal counts, however short it stood there"


async def test_a_suggestion_that_still_grows_is_refused_with_all_that_would_come(played: Played) -> None:
    played.model.answers({"total = ": f"sum(\n    first,{HERE}\n    second,\n)"})
    played.model.hold_rest()
    async with editor(played.environ, settings={"showAfterMs": 50}) as one:
        await one.ready()
        one.open(URI, "total = \nnext")
        assert await one.inline(URI, 0, 8, automatic=True)
        one.dismiss(URI, 0, 8)
        assert await one.command("peft-daemon.why"), "the server has taken the refusal"
        played.model.let_go()
        assert await one.inline(URI, 0, 8, automatic=True) == []
        await asyncio.sleep(0.3)
        assert one.mores == []


@pytest.mark.parametrize(
    ("line", "decider"),
    [("# the total ", Decider.IN_COMMENT), ('x = "the total ', Decider.IN_STRING)],
)
async def test_nothing_begins_in_comments_and_strings_unless_asked(played: Played, line: str, decider: Decider) -> None:
    played.model.answers({"total ": "of all"})
    async with editor(played.environ, settings={"showAfterMs": 0}) as one:
        await one.ready()
        one.open(URI, f"{line}\n")
        assert await one.inline(URI, 0, len(line), automatic=True) == []
        assert (await one.command("peft-daemon.why"))["silent"]["decision"]["decider"] == decider
        (by_hand,) = await one.inline(URI, 0, len(line))
        assert by_hand.insert_text == "of all"
    async with editor(played.environ, settings={"showAfterMs": 0, "silentIn": []}) as one:
        await one.ready()
        one.open(URI, f"{line}\n")
        assert await one.inline(URI, 0, len(line), automatic=True)


async def test_a_suggestion_that_begins_before_a_string_goes_on_in_it(played: Played) -> None:
    played.model.answers({"name = ": '"the whole text"'})
    async with editor(played.environ, settings={"showAfterMs": 0}) as one:
        await one.ready()
        one.open(URI, "name = \n")
        assert await one.inline(URI, 0, 7, automatic=True)
        one.edit(URI, (0, 7), (0, 7), '"the')
        (item,) = await one.inline(URI, 0, 11, automatic=True)
        assert item.insert_text == ' whole text"'


async def test_files_that_a_pattern_names_get_no_suggestions(played: Played) -> None:
    played.model.answers({"total = ": "sum(values)"})
    async with editor(played.environ, settings={"showAfterMs": 0, "disabledFiles": ["*.gen.py", "vendor/"]}) as one:
        await one.ready()
        for name in ("a.gen.py", "vendor/a.py"):
            uri = f"file:///project/{name}"
            one.open(uri, "total = \n")
            assert await one.inline(uri, 0, 8, automatic=True) == []
            told = await one.command("peft-daemon.why", uri)
            assert told["silent"]["decision"]["decider"] == Decider.FILE_PATTERN
        one.open(URI, "total = \n")
        assert await one.inline(URI, 0, 8, automatic=True)


async def test_who_asks_by_hand_gets_up_to_three_and_the_one_that_is_taken_is_recorded(played: Played) -> None:
    played.model.answers({"total = ": f"sum(values){OR}len(values){OR}max(values)", "same = ": f"one{OR}one{OR}one"})
    async with editor(played.environ, settings={"showAfterMs": 0}) as one:
        await one.ready()
        one.open(URI, "total = \nsame = \n")
        items = await one.inline(URI, 0, 8)
        assert [item.insert_text for item in items] == ["sum(values)", "len(values)", "max(values)"]
        assert len(await one.inline(URI, 1, 7)) == 1
        items = await one.inline(URI, 0, 8)
        one.edit(URI, (0, 8), (0, 8), "max(values)")
        assert items[2].command is not None
        await one.command(items[2].command.command, *(items[2].command.arguments or ()))
        assert await one.leave() == 0
    records = [row.record for row in FeedbackStore(played.paths.feedback_file).rows()]
    taken = [each for each in records if each.outcome is Outcome.ACCEPTED]
    assert [each.shown for each in taken] == [len("max(values)")]
    assert all(each.outcome is not Outcome.REJECTED or each.shown == len("one") for each in records)
