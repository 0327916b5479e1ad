"""Where the cursor rests is read ahead of any request, one place at a time, and nothing where completions are off.

The daemon is played; how long a rest is does not matter here, so all rests are over at once.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsprotocol import types

from peft_core.api_types import CompleteRequest
from peft_lsp import prefetch
from peft_lsp.documents import ContentChange, OpenDocuments, TextPosition, WorkspaceFolders
from peft_lsp.language_server import PeftLanguageServer
from peft_lsp.positions import Encoding
from peft_lsp.prefetch import HEAD_LINES, Prefetch, cursor, warm
from peft_lsp.settings import EditorSettings

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
        self.warming = Prefetch(self.warm)

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
        self.warming.asked(snapshot)


def typed(place: TextPosition, text: str) -> ContentChange:
    return ContentChange(place, place, text)


async def test_what_is_opened_is_read_from_the_head_if_the_cursor_is_not_known() -> None:
    reader = Reader()
    reader.warming.opened(URI)
    await reader.settled()
    assert reader.read == [(URI, None)]


async def test_an_editor_that_tells_its_cursor_has_only_that_place_read() -> None:
    reader = Reader()
    reader.warming.opened(URI)
    reader.warming.moved(URI, (3, 1))
    reader.warming.opened(OTHER)
    await reader.settled()
    assert reader.read == [(URI, (3, 1))]


async def test_a_newer_place_ends_the_reading_of_an_older_one() -> None:
    reader = Reader()
    reader.holds = True
    reader.warming.moved(URI, (3, 1))
    await reader.settled()
    reader.warming.moved(OTHER, (0, 0))
    await reader.settled()
    assert reader.read == [(URI, (3, 1)), (OTHER, (0, 0))]
    assert reader.ended == 1
    reader.warming.close()


async def test_a_completion_ends_it_and_its_place_needs_no_reading_until_an_edit() -> None:
    reader = Reader()
    reader.holds = True
    reader.warming.moved(URI, (1, 1))
    await reader.settled()
    reader.ask((1, 2))
    await reader.settled()
    assert reader.ended == 1
    reader.warming.saved(URI)
    reader.warming.moved(URI, (1, 2))
    await reader.settled()
    assert len(reader.read) == 1
    reader.warming.edited(URI, [typed((1, 2), "x")])
    await reader.settled()
    assert reader.read[1:] == [(URI, (1, 3))]
    reader.warming.close()


async def test_an_edit_begins_the_silence_anew_and_a_request_ends_it() -> None:
    reader = Reader()
    for text in "ab":
        reader.warming.edited(URI, [typed((0, 0), text)])
    reader.ask((0, 1))
    await reader.settled()
    assert reader.read == []


async def test_saving_reads_where_the_cursor_is_and_only_in_its_document() -> None:
    reader = Reader()
    reader.warming.moved(OTHER, (0, 0))
    reader.warming.moved(URI, (2, 0))
    await reader.settled()
    reader.warming.edited(URI, [typed((0, 0), "import os\n")])
    reader.warming.saved(OTHER)
    reader.warming.saved(URI)
    await reader.settled()
    assert reader.read == [(URI, (2, 0)), (URI, (3, 0))]


async def test_what_was_read_is_not_read_again_but_what_was_not_is() -> None:
    reader = Reader()
    reader.can = False
    reader.warming.moved(URI, (2, 0))
    await reader.settled()
    reader.can = True
    reader.warming.saved(URI)
    await reader.settled()
    reader.warming.saved(URI)
    await reader.settled()
    assert len(reader.read) == 2


async def test_a_closed_document_is_forgotten() -> None:
    reader = Reader()
    reader.holds = True
    reader.warming.moved(OTHER, (0, 0))
    reader.warming.moved(URI, (2, 0))
    await reader.settled()
    reader.warming.closed(OTHER)
    assert reader.ended == 0
    reader.warming.closed(URI)
    reader.warming.saved(URI)
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
    reader.warming.moved(URI, document.locate(place_of(document.text, len(text)), Encoding.UTF32))
    for one, other, new in edits:
        bar = document.text.index("|")
        start, end = sorted((min(one, bar), min(other, bar)))
        span = types.Range(place_of(document.text, start), place_of(document.text, end))
        change = types.TextDocumentContentChangePartial(span, new)
        identity = types.VersionedTextDocumentIdentifier(2, URI)
        reader.warming.edited(URI, documents.change(types.DidChangeTextDocumentParams(identity, [change])))
        line, offset = reader.warming._cursors[URI]
        assert document.lines[line][offset:] == "|behind"
    reader.warming.close()


def place_of(text: str, offset: int) -> types.Position:
    head = text[:offset]
    return types.Position(head.count("\n"), len(head) - head.rfind("\n") - 1)


class TestRequest:
    """What is asked of the daemon."""

    def server(self, text: str, configuration: EditorSettings) -> tuple[PeftLanguageServer, list[CompleteRequest]]:
        asked: list[CompleteRequest] = []

        async def note(request: CompleteRequest) -> bool:
            asked.append(request)
            return True

        async def of(_: str) -> EditorSettings:
            return configuration

        documents = OpenDocuments(Encoding.UTF16)
        documents.open(types.TextDocumentItem(URI, "python", 1, text))
        ls: Any = SimpleNamespace(
            id="me", purpose="fill", documents=documents, folders=WorkspaceFolders(["file:///project"])
        )
        ls.daemon, ls.settings, ls.warming = SimpleNamespace(warm=note), SimpleNamespace(of=of), Prefetch(note_place)
        return cast(PeftLanguageServer, ls), asked

    async def test_it_is_the_request_that_a_completion_there_would_be(self) -> None:
        ls, asked = self.server("a\nbc\n", EditorSettings(adapter="mine"))
        assert await warm(ls, URI, (1, 2))
        (request,) = asked
        assert (request.prefix, request.suffix) == ("a\nbc", "\n")
        assert (request.adapter, request.document, request.workspace) == ("mine", f"me:fill:{URI}", "/project")

    @pytest.mark.parametrize(("lines", "known"), [(3, 3), (HEAD_LINES + 100, HEAD_LINES)])
    async def test_without_a_cursor_it_is_the_end_of_the_head(self, lines: int, known: int) -> None:
        ls, asked = self.server("\n".join(["line"] * lines), EditorSettings())
        assert await warm(ls, URI, None)
        assert asked[0].prefix == "\n".join(["line"] * known)

    async def test_inside_a_word_where_nothing_is_asked_for_it_is_the_end_of_the_line(self) -> None:
        ls, asked = self.server("def total(a):\n    pass\n", EditorSettings())
        for offset in (0, 2, 4, 9, 10, 13):
            assert await warm(ls, URI, (0, offset))
        assert [len(request.prefix) for request in asked] == [13, 13, 13, 9, 13, 13]

    async def test_a_place_that_is_no_more_is_the_end(self) -> None:
        ls, asked = self.server("a\nbc", EditorSettings())
        assert await warm(ls, URI, (7, 7))
        assert asked[0].prefix == "a\nbc"

    @pytest.mark.parametrize(
        ("text", "configuration"),
        [
            ("x = 1", EditorSettings(enabled=False)),
            ("x = 1", EditorSettings(disabled_languages=["python"])),
            ("", EditorSettings()),
            ("PK\0\1", EditorSettings()),
        ],
    )
    async def test_nothing_is_read_where_nothing_will_be_asked(self, text: str, configuration: EditorSettings) -> None:
        ls, asked = self.server(text, configuration)
        assert not await warm(ls, URI, (0, 1))
        assert not await warm(ls, OTHER, (0, 1))
        assert asked == []

    async def test_the_editors_cursor_is_counted_as_the_editor_counts(self) -> None:
        ls, _ = self.server("😀😀 x", EditorSettings())
        cursor(ls, SimpleNamespace(uri=URI, position=SimpleNamespace(line=0, character=4)))
        assert ls.warming._cursors == {URI: (0, 2)}
        ls.warming.close()

    @pytest.mark.parametrize(
        "params",
        [
            None,
            SimpleNamespace(uri=URI),
            SimpleNamespace(uri=OTHER, position=SimpleNamespace(line=0, character=0)),
            SimpleNamespace(uri=3, position=SimpleNamespace(line=0, character=0)),
            SimpleNamespace(uri=URI, position=SimpleNamespace(line="0", character=0)),
        ],
    )
    async def test_a_cursor_that_cannot_be_read_or_is_nowhere_is_left_alone(self, params: object) -> None:
        ls, _ = self.server("x", EditorSettings())
        cursor(ls, params)
        assert ls.warming._cursors == {}


async def note_place(_uri: str, _place: TextPosition | None) -> bool:
    return True
