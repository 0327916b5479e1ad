"""Offers are looked at when their time has come, and what is told of them fits the daemon's bounds.

The daemon is played: the test is about the clock, and about what is sent.
"""

from __future__ import annotations

import asyncio
from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsprotocol import types

from peft_core.api_types import (
    LONGEST_SUGGESTION,
    LONGEST_WINDOW,
    AdapterUse,
    CompleteResponse,
    FeedbackRequest,
    FinishReason,
    Outcome,
    Task,
)
from peft_core.code.positions import Encoding
from peft_lsp import feedback, suggestion_tracker
from peft_lsp.daemon_connection import DaemonConnection
from peft_lsp.documents import OpenDocuments
from peft_lsp.feedback import MAX_CHARS_COMPARED, FeedbackReporter, SuggestionContext, count_kept_characters

URI = "file:///project/demo.py"
MINE = AdapterUse("mine", "abc", 0.5)


class Editing:
    """One document, edited at the end."""

    def __init__(self, text: str) -> None:
        self.documents = OpenDocuments(Encoding.UTF16)
        self.documents.open(types.TextDocumentItem(URI, "python", 1, text))
        self.told: list[FeedbackRequest] = []
        self.news = asyncio.Event()
        self.feedback = FeedbackReporter(self.documents, cast(DaemonConnection, self))

    async def record(self, told: FeedbackRequest) -> None:
        self.told.append(told)
        self.news.set()

    def end(self) -> types.Position:
        document = self.documents.get(URI)
        assert document is not None
        return types.Position(len(document.lines) - 1, len(document.lines[-1]))

    def offer(self, text: str, id_: str = "1") -> str:
        snapshot = self.documents.snapshot(URI, self.end())
        assert snapshot is not None
        response = CompleteResponse(
            id=id_, text=text, finish_reason=FinishReason.STOP, task=Task.FILL, model="m", adapter=MINE
        )
        return self.feedback.show(SuggestionContext(snapshot, "", text, response, 12.4))

    def type(self, text: str) -> None:
        change = types.TextDocumentContentChangePartial(types.Range(self.end(), self.end()), text)
        identity = types.VersionedTextDocumentIdentifier(2, URI)
        edits = self.documents.change(types.DidChangeTextDocumentParams(identity, [change]))
        self.feedback.document_changed(URI, edits)


async def test_an_accepted_offer_is_looked_at_when_its_time_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suggestion_tracker, "RECHECK_AFTER_S", 0.01)
    one = Editing("x = ")
    one.offer("sum(a)")
    one.type("sum(a)")
    await one.news.wait()
    (told,) = one.told
    assert (told.outcome, told.now, told.kept, told.stood) == (Outcome.ACCEPTED, "sum(a)", 6, 6)
    assert (told.adapter, told.model, told.latency_ms) == (MINE, "m", 12)
    assert (told.prefix, told.suffix) == ("x = ", "")
    assert one.feedback.tracked_ids == set()


async def test_a_suggestion_that_grew_is_told_once_and_whole() -> None:
    one = Editing("x = ")
    first = one.offer("sum(a")
    assert one.offer("sum(a, b)", "2") == first
    one.type("sum(a, b)")
    await one.feedback.close()
    (told,) = one.told
    assert (told.offer, told.outcome, told.suggestion) == (first, Outcome.ACCEPTED, "sum(a, b)")
    assert (told.shown, told.accepted, told.prefix) == (9, 9, "x = ")


async def test_leaving_ends_the_clock_and_tells_what_is_left() -> None:
    one = Editing("x = ")
    one.offer("sum(a)")
    one.type("sum(a)")
    await one.feedback.close()
    assert [told.outcome for told in one.told] == [Outcome.ACCEPTED]
    assert not asyncio.all_tasks() - {asyncio.current_task()}


async def test_leaving_does_not_wait_for_a_daemon_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "MAX_SETTLE_S", 0.01)
    one = Editing("x = ")
    held = asyncio.Event()

    async def record(_: FeedbackRequest) -> None:
        await held.wait()

    one.record = record  # type: ignore[method-assign]
    one.offer("sum(a)")
    one.type("sum(a)")
    await one.feedback.close()
    held.set()


async def test_texts_are_cut_to_what_the_daemon_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "value = 'a line of this file'\n"
    one = Editing(line * (LONGEST_WINDOW // len(line) + 5) + "x = ")
    one.offer("y" * (LONGEST_SUGGESTION + 1))
    one.type("y" * (LONGEST_SUGGESTION + 1))
    await one.feedback.close()
    (told,) = one.told
    assert told.prefix.startswith("value = ")
    assert told.prefix.endswith("\nx = ")
    assert len(told.suggestion) == LONGEST_SUGGESTION
    assert msgspec.json.decode(msgspec.json.encode(told), type=FeedbackRequest) == told


async def test_documents_without_offers_are_not_followed() -> None:
    one = Editing("x = ")
    one.type("1")
    one.feedback.document_closing(URI)
    await one.feedback.close()
    assert one.told == []


async def test_windows_line_ends_make_no_difference() -> None:
    one = Editing("a\r\nx = ")
    one.offer("sum(\r\n  a)")
    one.type("sum(\r\n  a)")
    await one.feedback.close()
    (told,) = one.told
    assert (told.outcome, told.suggestion, told.now) == (Outcome.ACCEPTED, "sum(\n  a)", "sum(\n  a)")
    assert told.prefix == "a\nx = "


texts = st.text(st.sampled_from("ab\n (x"), max_size=40)


def test_a_renamed_variable_leaves_the_rest() -> None:
    assert count_kept_characters("total = sum(xs)\n", "result = sum(xs)\n") == len(" = sum(xs)\n")


def test_letters_that_happen_to_be_alike_do_not_count() -> None:
    assert count_kept_characters("return a + b", "raise ValueError") == 0


def test_a_long_text_is_compared_by_lines() -> None:
    lines = [f"value_{n} = {n}\n" for n in range(MAX_CHARS_COMPARED // 10)]
    changed = [*lines[:50], "other\n", *lines[51:]]
    assert count_kept_characters("".join(lines), "".join(changed)) == sum(map(len, lines)) - len(lines[50])


@given(texts, texts, texts, texts)
def test_a_whole_text_is_kept_whole_and_nothing_is_kept_of_an_empty_place(a: str, b: str, c: str, d: str) -> None:
    assert count_kept_characters(a, b + a + c) == len(a)
    assert count_kept_characters(a, "") == 0
    assert 0 <= count_kept_characters(a + b, c + d) <= len(a + b)
