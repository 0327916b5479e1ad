"""Where the cursor rests is read ahead of any request, one place at a time, and nothing where completions are off.

The daemon is played; how long a rest is does not matter here, so all rests are over at once.
"""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsprotocol import types

from peft_core.code.positions import Encoding
from peft_lsp import prefetch
from peft_lsp.documents import ContentChange, OpenDocuments, TextPosition
from peft_lsp.prefetch import Prefetch

URI, OTHER = "file:///project/demo.py", "file:///project/other.py"


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AFTER_OPEN_S", "AFTER_CURSOR_MOVE_S", "AFTER_EDIT_S"):
        monkeypatch.setattr(prefetch, name, 0)


class Reader:
    """Reads when it is told to, or never."""

    def __init__(self) -> None:
        self.read: list[tuple[str, TextPosition | None]] = []
        self.ended = 0
        self.holds = False
        self.can = True
        self.prefetch = Prefetch(self.warm)

    async def warm(self, uri: str, place: TextPosition | None) -> bool:
        self.read.append((uri, place))
        try:
            while self.holds:
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.ended += 1
            raise
        return self.can

    async def settled(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    def ask(self, place: TextPosition, uri: str = URI) -> None:
        documents = OpenDocuments(Encoding.UTF32)
        documents.open(types.TextDocumentItem(uri, "python", 1, "a\nbc\ndef\n"))
        snapshot = documents.snapshot(uri, types.Position(*place))
        assert snapshot is not None
        self.prefetch.completion_requested(snapshot)


def typed(place: TextPosition, text: str) -> ContentChange:
    return ContentChange(place, place, text)


async def test_what_is_opened_is_read_from_the_head_if_the_cursor_is_not_known() -> None:
    reader = Reader()
    reader.prefetch.opened(URI)
    await reader.settled()
    assert reader.read == [(URI, None)]


async def test_an_editor_that_tells_its_cursor_has_only_that_place_read() -> None:
    reader = Reader()
    reader.prefetch.opened(URI)
    reader.prefetch.moved(URI, (3, 1))
    reader.prefetch.opened(OTHER)
    await reader.settled()
    assert reader.read == [(URI, (3, 1))]


async def test_a_newer_place_ends_the_reading_of_an_older_one() -> None:
    reader = Reader()
    reader.holds = True
    reader.prefetch.moved(URI, (3, 1))
    await reader.settled()
    reader.prefetch.moved(OTHER, (0, 0))
    await reader.settled()
    assert reader.read == [(URI, (3, 1)), (OTHER, (0, 0))]
    assert reader.ended == 1
    reader.prefetch.close()


async def test_a_completion_ends_it_and_its_place_needs_no_reading_until_an_edit() -> None:
    reader = Reader()
    reader.holds = True
    reader.prefetch.moved(URI, (1, 1))
    await reader.settled()
    reader.ask((1, 2))
    await reader.settled()
    assert reader.ended == 1
    reader.prefetch.saved(URI)
    reader.prefetch.moved(URI, (1, 2))
    await reader.settled()
    assert len(reader.read) == 1
    reader.prefetch.edited(URI, [typed((1, 2), "x")])
    await reader.settled()
    assert reader.read[1:] == [(URI, (1, 3))]
    reader.prefetch.close()


async def test_an_edit_begins_the_silence_anew_and_a_request_ends_it() -> None:
    reader = Reader()
    for text in "ab":
        reader.prefetch.edited(URI, [typed((0, 0), text)])
    reader.ask((0, 1))
    await reader.settled()
    assert reader.read == []


async def test_saving_reads_where_the_cursor_is_and_only_in_its_document() -> None:
    reader = Reader()
    reader.prefetch.moved(OTHER, (0, 0))
    reader.prefetch.moved(URI, (2, 0))
    await reader.settled()
    reader.prefetch.edited(URI, [typed((0, 0), "import os\n")])
    reader.prefetch.saved(OTHER)
    reader.prefetch.saved(URI)
    await reader.settled()
    assert reader.read == [(URI, (2, 0)), (URI, (3, 0))]


async def test_what_was_read_is_not_read_again_but_what_was_not_is() -> None:
    reader = Reader()
    reader.can = False
    reader.prefetch.moved(URI, (2, 0))
    await reader.settled()
    reader.can = True
    reader.prefetch.saved(URI)
    await reader.settled()
    reader.prefetch.saved(URI)
    await reader.settled()
    assert len(reader.read) == 2


async def test_a_closed_document_is_forgotten() -> None:
    reader = Reader()
    reader.holds = True
    reader.prefetch.moved(OTHER, (0, 0))
    reader.prefetch.moved(URI, (2, 0))
    await reader.settled()
    reader.prefetch.closed(OTHER)
    assert reader.ended == 0
    reader.prefetch.closed(URI)
    reader.prefetch.saved(URI)
    await reader.settled()
    assert (len(reader.read), reader.ended) == (1, 1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@given(
    st.text(st.sampled_from("ab\n"), max_size=20),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.text(st.sampled_from("xy\n"), max_size=4))),
)
async def test_the_cursor_stays_inside_the_document_and_before_what_stands_behind_it(
    text: str, edits: list[tuple[int, int, str]]
) -> None:
    documents = OpenDocuments(Encoding.UTF32)
    documents.open(types.TextDocumentItem(URI, "python", 1, f"{text}|behind"))
    document = documents.get(URI)
    assert document is not None
    reader = Reader()
    reader.prefetch.moved(URI, document.locate(place_of(document.text, len(text)), Encoding.UTF32))
    for one, other, new in edits:
        bar = document.text.index("|")
        start, end = sorted((min(one, bar), min(other, bar)))
        span = types.Range(place_of(document.text, start), place_of(document.text, end))
        change = types.TextDocumentContentChangePartial(span, new)
        identity = types.VersionedTextDocumentIdentifier(2, URI)
        reader.prefetch.edited(URI, documents.change(types.DidChangeTextDocumentParams(identity, [change])))
        cursor = reader.prefetch.cursor_in(URI)
        assert cursor is not None
        line, offset = cursor
        assert document.lines[line][offset:] == "|behind"
    reader.prefetch.close()


def place_of(text: str, offset: int) -> types.Position:
    head = text[:offset]
    return types.Position(head.count("\n"), len(head) - head.rfind("\n") - 1)
