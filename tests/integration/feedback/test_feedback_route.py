"""Clients tell the daemon what became of suggestions; it keeps that where it may, and answers others meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3

import msgspec
import pytest

from peft_core.api_types import LONGEST_WINDOW, FeedbackRequest, Outcome
from peft_core.errors import Conflict, InvalidInput
from peft_daemon.client import DaemonClient
from peft_daemon.feedback import FeedbackStore
from support.played_daemon import Played, played_home


def told(offer: str = "1", prefix: str = "") -> FeedbackRequest:
    return FeedbackRequest(
        offer=offer, outcome=Outcome.REJECTED, language="python", prefix=prefix, suggestion="x", shown=1, model="m"
    )


async def client_of(played: Played) -> DaemonClient:
    return await DaemonClient.connect(paths=played.paths, start=False)


async def test_a_record_is_kept_once_and_one_out_of_bounds_is_refused(played: Played) -> None:
    async with await client_of(played) as client:
        assert await client.record(told())
        assert not await client.record(told())
        assert await client.record(told("2", "x" * LONGEST_WINDOW))
        with pytest.raises(InvalidInput, match="prefix"):
            await client.record(told("3", "x" * (LONGEST_WINDOW + 1)))
    rows = list(FeedbackStore(played.paths.feedback_file).rows())
    assert [row.record for row in rows] == [told().counts(), told("2").counts()]


async def test_by_default_only_numbers_are_kept_until_the_editor_tells_that_the_user_agreed(played: Played) -> None:
    async with await client_of(played) as client:
        await client.record(told("1", "text_of_mine = "))
        assert b"text_of_mine" not in played.paths.feedback_file.read_bytes()
        await client.record(msgspec.structs.replace(told("2", "text_of_mine = "), text_agreed=True))
    first, second = FeedbackStore(played.paths.feedback_file).rows()
    assert (first.record.prefix, second.record.prefix) == ("", "text_of_mine = ")


async def test_a_setting_from_before_text_was_asked_for_means_numbers() -> None:
    async with played_home(PEFT_DAEMON_FEEDBACK="true") as home, await client_of(home) as client:
        await client.record(told("1", "text_of_mine = "))
        (row,) = FeedbackStore(home.paths.feedback_file).rows()
        assert (row.record.prefix, row.has_text) == ("", False)


async def test_the_setting_for_text_keeps_that_of_every_client() -> None:
    async with played_home(PEFT_DAEMON_FEEDBACK="text") as home, await client_of(home) as client:
        await client.record(told("1", "text_of_mine = "))
        (row,) = FeedbackStore(home.paths.feedback_file).rows()
        assert (row.record.prefix, row.has_text) == ("text_of_mine = ", True)


async def test_nothing_is_kept_where_the_setting_says_so() -> None:
    async with played_home(PEFT_DAEMON_FEEDBACK="false") as home, await client_of(home) as client:
        assert not await client.record(told())
        assert not home.paths.feedback_file.parent.exists()


async def test_while_another_process_holds_the_file_the_daemon_answers_others(played: Played) -> None:
    async with await client_of(played) as client:
        await client.record(told())
        holder = sqlite3.connect(played.paths.feedback_file, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        waiting = asyncio.create_task(client.record(told("2")))
        for _ in range(3):
            await client.status()
        assert not waiting.done()
        holder.execute("COMMIT")
        holder.close()
        assert await waiting


async def test_a_file_that_cannot_be_read_is_told_with_the_way_out(played: Played) -> None:
    played.paths.feedback_file.parent.mkdir(parents=True)
    played.paths.feedback_file.write_bytes(b"not a database " * 100)
    async with await client_of(played) as client:
        with pytest.raises(Conflict, match="feedback clear"):
            await client.record(told())
