"""A suggestion is shown before it is whole, and grows: real server, real daemon, a model that stops in the middle."""

from __future__ import annotations

import asyncio

import pytest
from lsprotocol import types

from peft_core.api_types import Outcome
from peft_daemon.client import CompleteRequest, DaemonClient
from peft_daemon.feedback import FeedbackStore
from support.editor import Editor, editor
from support.played_daemon import HERE, Played
from support.waiting import until, until_answer

URI = "file:///project/demo.py"
TEXT = "total = \nnext"
END = (0, 8)
FIRST, WHOLE = "sum(\n    first,", "sum(\n    first,\n    second,\n)"
QUICK = {"showAfterMs": 50}


async def shown_in_part(one: Editor, played: Played) -> types.InlineCompletionItem:
    """The beginning of the suggestion; the model holds back the rest."""
    played.model.answers({"total = ": WHOLE.replace(FIRST, f"{FIRST}{HERE}")})
    played.model.hold_rest()
    await one.ready()
    one.open(URI, TEXT)
    (item,) = await one.inline(URI, *END, automatic=True)
    assert isinstance(item.insert_text, str)
    assert WHOLE.startswith(item.insert_text)
    assert item.insert_text != WHOLE
    return item


async def test_the_editor_is_told_when_there_is_more_and_gets_it_without_the_model(played: Played) -> None:
    async with editor(played.environ, settings=QUICK) as one:
        part = await shown_in_part(one, played)
        states = len(one.statuses)
        more = asyncio.create_task(one.more())
        await asyncio.sleep(0)
        played.model.let_go()
        assert await more == {"uri": URI, "version": 1, "position": {"line": 0, "character": 8}}
        (item,) = await one.inline(URI, *END)
        assert item.insert_text == WHOLE
        assert len(played.model.asked) == 1
        assert len(one.statuses) == states, "nobody waits for the rest: the status says nothing of it"
        assert part.command is not None
        assert item.command is not None
        assert item.command.arguments == part.command.arguments


async def test_a_suggestion_that_grew_is_recorded_once(played: Played) -> None:
    async with editor(played.environ, settings=QUICK) as one:
        await shown_in_part(one, played)
        more = asyncio.create_task(one.more())
        await asyncio.sleep(0)
        played.model.let_go()
        await more
        await one.inline(URI, *END)
        one.edit(URI, END, END, WHOLE)
        assert await one.leave() == 0
    (row,) = FeedbackStore(played.paths.feedback_file).rows()
    assert (row.record.outcome, row.record.accepted) == (Outcome.ACCEPTED, len(WHOLE))


@pytest.mark.parametrize("event", ["edit", "close"])
async def test_nothing_is_told_of_a_document_that_changed_meanwhile(played: Played, event: str) -> None:
    async with editor(played.environ, settings=QUICK) as one:
        await shown_in_part(one, played)
        if event == "edit":
            one.edit(URI, END, END, "q")
        else:
            one.client.text_document_did_close(types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(URI)))
        played.model.let_go()
        assert await one.leave() == 0
        assert one.mores == []


async def test_an_editor_that_types_on_gets_the_rest_of_what_was_begun(played: Played) -> None:
    async with editor(played.environ, settings=QUICK) as one:
        await shown_in_part(one, played)
        one.edit(URI, END, END, "s")
        played.model.let_go()
        told = len(one.mores)
        (item,) = await one.inline(URI, 0, 9, automatic=True)
        if item.insert_text != WHOLE[1:]:  # it was time to show something before the model was done
            assert isinstance(item.insert_text, str)
            assert WHOLE[1:].startswith(item.insert_text)
            while len(one.mores) == told:
                await one.news()
            (item,) = await one.inline(URI, 0, 9, automatic=True)
        assert item.insert_text == WHOLE[1:]
        assert len(played.model.asked) == 1


async def test_a_request_the_editor_cancels_with_the_next_key_is_joined_by_the_next(played: Played) -> None:
    played.model.answers({"total = ": WHOLE})
    played.model.hold()
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, TEXT)
        params = one.inline_params(URI, *END, automatic=True)
        asked = asyncio.create_task(
            one.client.protocol.send_request_async(types.TEXT_DOCUMENT_INLINE_COMPLETION, params, msg_id="one")
        )
        await until(lambda: played.model.asked, "the first request, at the model")
        one.client.cancel_request(types.CancelParams("one"))
        one.edit(URI, END, END, "s")
        following = asyncio.create_task(one.inline(URI, 0, 9, automatic=True))
        await asyncio.gather(asked, return_exceptions=True)
        async with await DaemonClient.connect(paths=played.paths, start=False) as client:
            await until_answer(client.status, lambda now: now.completed_requests, "the next request, in its place")
        played.model.let_go()
        (item,) = await following
        assert item.insert_text == WHOLE[1:]
        assert len(played.model.asked) == 1


async def test_with_0_all_of_it_is_waited_for(played: Played) -> None:
    played.model.answers({"total = ": WHOLE.replace(FIRST, f"{FIRST}{HERE}")})
    played.model.hold_rest()
    async with editor(played.environ, settings={"showAfterMs": 0}) as one:
        await one.ready()
        one.open(URI, TEXT)
        asked = asyncio.create_task(one.inline(URI, *END, automatic=True))
        await until(lambda: played.model.asked, "the request, at the model")
        async with await DaemonClient.connect(paths=played.paths, start=False) as client:
            later = await client.complete(CompleteRequest(prefix="total = ", suffix="\nnext", show_after_ms=50))
        assert later.more, "one that came later and waits for less is shown the beginning"
        assert not asked.done()
        played.model.let_go()
        (item,) = await asked
        assert item.insert_text == WHOLE
        assert one.mores == []
