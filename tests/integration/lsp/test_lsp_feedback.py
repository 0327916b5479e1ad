"""What an editor does with a suggestion ends up in the daemon's store: real server, real daemon, a played model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from lsprotocol import types

from peft_core.api_types import Outcome
from peft_daemon.feedback import FeedbackRow, FeedbackStore
from peft_lsp.suggestion_tracker import MIN_READING_S
from support.editor import Editor, editor, uri_of
from support.played_daemon import Played
from support.waiting import until

URI = "file:///project/demo.py"
TEXT = 'face = "😀"; total = \nnext'
COLUMN = len(TEXT.split("\n", maxsplit=1)[0]) + 1
"""Where the suggestion goes; the emoji has two columns."""
OFFERED = "sum(\n    values\n)"


def store_of(played: Played) -> FeedbackStore:
    return FeedbackStore(played.paths.feedback_file)


async def recorded(played: Played, enough: Callable[[list[FeedbackRow]], bool] = bool) -> list[FeedbackRow]:
    """The rows, as soon as there are enough."""
    store = store_of(played)
    return await until(lambda: rows if enough(rows := list(store.rows())) else None, "rows of feedback")


async def offered(one: Editor, played: Played, uri: str = URI, text: str = TEXT) -> types.InlineCompletionItem:
    played.model.answers({"total = ": OFFERED})
    one.open(uri, text)
    (item,) = await one.inline(uri, 0, COLUMN)
    assert item.insert_text == OFFERED
    return item


def close(one: Editor, uri: str = URI) -> None:
    one.client.text_document_did_close(types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(uri)))


async def run_command(one: Editor, item: types.InlineCompletionItem) -> None:
    """What an editor does after it inserted an item."""
    assert item.command is not None
    assert item.command.title == "accepted"
    assert await one.command(item.command.command, *item.command.arguments or ()) is None


async def test_an_accepted_suggestion_is_recorded_once_with_what_stood_there_later(
    played: Played, tmp_path: Path
) -> None:
    (tmp_path / ".git").mkdir()
    uri = uri_of(tmp_path / "demo.py")
    async with editor(played.environ, settings={"feedback": "text"}) as one:
        await one.ready()
        item = await offered(one, played, uri)
        one.edit(uri, (0, COLUMN), (0, COLUMN), OFFERED)
        await run_command(one, item)
        one.edit(uri, (0, COLUMN), (0, COLUMN + 3), "max")
        close(one, uri)
        (row,) = await recorded(played)
    record = row.record
    assert (record.outcome, record.accepted, record.shown, record.stood) == (Outcome.ACCEPTED, *[len(OFFERED)] * 3)
    assert (record.now, record.kept) == (OFFERED.replace("sum", "max"), len(OFFERED) - 3)
    assert (record.prefix, record.suffix, record.suggestion) == (TEXT.split("\n", maxsplit=1)[0], "\nnext", OFFERED)
    assert (row.repository, record.path) == (str(tmp_path), str(tmp_path / "demo.py"))
    assert (record.language, record.adapter) == ("python", None)
    assert record.model == "qwen2.5-coder-0.5b-instruct"
    assert store_of(played).count() == 1


async def test_an_editor_without_the_command_is_understood_by_its_edits(played: Played) -> None:
    async with editor(played.environ, settings={"feedback": "text"}) as one:
        await one.ready()
        await offered(one, played)
        one.edit(URI, (0, COLUMN), (0, COLUMN), "s")
        one.edit(URI, (0, COLUMN + 1), (0, COLUMN + 1), OFFERED[1:])
        close(one)
        (row,) = await recorded(played)
    assert (row.record.outcome, row.record.accepted) == (Outcome.ACCEPTED, len(OFFERED) - 1)


async def test_a_rejected_suggestion_is_told_without_waiting_for_the_document_to_be_closed(played: Played) -> None:
    async with editor(played.environ, settings={"feedback": "text"}) as one:
        await one.ready()
        await offered(one, played)
        await asyncio.sleep(MIN_READING_S)
        one.edit(URI, (0, COLUMN), (0, COLUMN), "x")
        (row,) = await recorded(played)
    assert (row.record.outcome, row.record.now, row.record.kept) == (Outcome.REJECTED, None, None)


async def test_a_suggestion_in_a_document_that_is_opened_anew_is_recorded_as_it_stood_before(played: Played) -> None:
    async with editor(played.environ, settings={"feedback": "text"}) as one:
        await one.ready()
        item = await offered(one, played)
        one.edit(URI, (0, COLUMN), (0, COLUMN), OFFERED)
        await run_command(one, item)
        one.open(URI, "")
        (row,) = await recorded(played)
    assert (row.record.outcome, row.record.now) == (Outcome.ACCEPTED, OFFERED)


async def test_an_editor_that_leaves_loses_nothing(played: Played) -> None:
    async with editor(played.environ, settings={"feedback": "text"}) as one:
        await one.ready()
        await offered(one, played)
        one.edit(URI, (0, COLUMN), (0, COLUMN), "sum(\n")
        assert await one.leave() == 0
    (row,) = store_of(played).rows()
    assert (row.record.outcome, row.record.accepted, row.record.now) == (Outcome.PARTLY, 5, "sum(\n")


async def test_an_editor_that_is_gone_before_its_goodbye_is_answered_loses_nothing(played: Played) -> None:
    async with editor(played.environ, settings={"feedback": "text"}) as one:
        await one.ready()
        await offered(one, played)
        one.edit(URI, (0, COLUMN), (0, COLUMN), "sum(\n")
        assert one.process.stdin is not None
        one.process.stdin.close()
        await one.process.wait()
    (row,) = store_of(played).rows()
    assert (row.record.outcome, row.record.accepted, row.record.now) == (Outcome.PARTLY, 5, "sum(\n")


@pytest.mark.parametrize("setting", [None, "counts"])
async def test_without_consent_an_accepted_suggestion_is_counted_and_its_text_stays_nowhere(
    played: Played, setting: object
) -> None:
    async with editor(played.environ, settings={"feedback": setting}) as one:
        await one.ready()
        item = await offered(one, played)
        one.edit(URI, (0, COLUMN), (0, COLUMN), OFFERED)
        await run_command(one, item)
        close(one)
        (row,) = await recorded(played)
    assert (row.record.outcome, row.record.accepted, row.record.kept) == (Outcome.ACCEPTED, *[len(OFFERED)] * 2)
    assert (row.has_text, row.record) == (False, row.record.counts())
    files = b"".join(file.read_bytes() for file in played.paths.feedback_file.parent.iterdir())
    for piece in (b"sum(", b"face", b"demo.py"):
        assert piece not in files


async def test_nothing_is_recorded_for_an_editor_that_does_not_want_it(played: Played) -> None:
    async with editor(played.environ, settings={"feedback": False}) as one:
        await one.ready()
        item = await offered(one, played)
        one.edit(URI, (0, COLUMN), (0, COLUMN), OFFERED)
        await run_command(one, item)
        assert await one.leave() == 0
    assert not played.paths.feedback_file.exists()


async def test_an_unknown_offer_is_ignored(played: Played) -> None:
    async with editor(played.environ, settings={"feedback": "text"}) as one:
        await one.ready()
        assert await one.command("peft-daemon.accepted", "no such offer") is None
        assert await one.leave() == 0
    assert store_of(played).count() == 0
