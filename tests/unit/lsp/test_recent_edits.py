"""Where documents were edited lately, and when that is told."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsprotocol import types

from peft_core.api_types import LONGEST_EDIT, MOST_EDITS, ContextChanged
from peft_core.code.positions import Encoding
from peft_lsp import recent_edits
from peft_lsp.documents import ContentChange, OpenDocuments
from peft_lsp.recent_edits import MAX_REGION_LINES, RecentEdits, Region, with_edit

URI = "file:///project/a.py"


class Editor:
    """Documents whose edits are followed."""

    def __init__(self) -> None:
        self.documents = OpenDocuments(Encoding.UTF16)
        self.told: list[ContextChanged] = []
        self.was_told = asyncio.Event()
        self.recent = RecentEdits(self.documents, self._tell, self._workspace)

    async def _tell(self, news: ContextChanged) -> None:
        self.told.append(news)
        self.was_told.set()

    @staticmethod
    def _workspace(path: str) -> str | None:
        return next((root for root in ("/project", "/other") if path.startswith(root + "/")), None)

    def open(self, uri: str, lines: int, language: str = "python") -> None:
        text = "".join(f"line_{number}\n" for number in range(lines))
        self.documents.open(types.TextDocumentItem(uri=uri, language_id=language, version=1, text=text))

    def type(self, uri: str, line: int, text: str, *, over: int = 0) -> None:
        span = types.Range(types.Position(line, 0), types.Position(line + over, 0))
        change = types.TextDocumentContentChangePartial(range=span, text=text)
        document = types.VersionedTextDocumentIdentifier(version=2, uri=uri)
        self.recent.edited(uri, self.documents.change(types.DidChangeTextDocumentParams(document, [change])))

    def texts(self) -> list[str]:
        return [each.text for news in self.recent.take_reports() for each in news.edits or ()]


@pytest.fixture
async def editor(monkeypatch: pytest.MonkeyPatch) -> Editor:
    monkeypatch.setattr(recent_edits, "SEND_AFTER_S", 0.01)
    return Editor()


async def test_an_edited_place_is_told_with_the_lines_around_it(editor: Editor) -> None:
    editor.open(URI, 50)
    editor.type(URI, 20, "new = 1\n")
    (news,) = editor.recent.take_reports()
    assert news.workspace == "/project"
    assert news.edits is not None
    assert [each.path for each in news.edits] == ["/project/a.py"]
    assert news.edits[0].text.split("\n") == [
        *(f"line_{n}" for n in range(17, 20)), "new = 1", *(f"line_{n}" for n in range(20, 24)),
    ]  # fmt: skip


async def test_nothing_is_told_of_files_that_hold_secrets(editor: Editor) -> None:
    for name, language in ((".env", "sh"), ("deploy.key", "plaintext"), ("variables", "dotenv")):
        uri = f"file:///project/{name}"
        editor.open(uri, 10, language)
        editor.type(uri, 5, "A=1\n")
        editor.recent.closing(uri)
    editor.recent.saved("file:///project/.env")
    assert editor.recent.take_reports() == ()


async def test_the_newest_place_comes_first_and_close_ones_are_one(editor: Editor) -> None:
    editor.open(URI, 200)
    for line in (10, 100, 12):
        editor.type(URI, line, f"at_{line} = 1\n")
    first, second = editor.texts()
    assert "at_10" in first
    assert "at_12" in first
    assert "at_100" in second


async def test_a_place_moves_with_what_is_typed_above_it(editor: Editor) -> None:
    editor.open(URI, 200)
    editor.type(URI, 100, "wanted = 1\n")
    editor.type(URI, 10, "x\n" * 30)
    editor.type(URI, 10, "", over=7)
    assert "wanted = 1" in editor.texts()[1]


async def test_a_closed_document_is_told_as_it_was(editor: Editor) -> None:
    editor.open(URI, 30)
    editor.type(URI, 5, "kept = 1\n")
    editor.recent.closing(URI)
    editor.documents.close(URI)
    assert "kept = 1" in editor.texts()[0]


async def test_what_was_told_is_not_told_again_and_what_is_gone_is(editor: Editor) -> None:
    editor.open(URI, 30)
    editor.type(URI, 5, "kept = 1\n")
    editor.recent.saved(URI)
    (news,) = editor.recent.take_reports()
    assert news.saved == ["/project/a.py"]
    assert editor.recent.take_reports() == ()
    editor.type(URI, 0, "", over=31)
    (news,) = editor.recent.take_reports()
    assert news.edits == []


async def test_each_workspace_hears_of_its_own_files_only(editor: Editor) -> None:
    for uri in (URI, "file:///other/b.py", "file:///nowhere/c.py", "untitled:d"):
        editor.open(uri, 9)
        editor.type(uri, 3, "new = 1\n")
        editor.recent.saved(uri)
    told = {
        news.workspace: ([each.path for each in news.edits or ()], news.saved) for news in editor.recent.take_reports()
    }
    assert told == {"/project": (["/project/a.py"], ["/project/a.py"]), "/other": (["/other/b.py"], ["/other/b.py"])}


async def test_it_is_told_once_when_the_typing_pauses(editor: Editor) -> None:
    editor.open(URI, 30)
    for line in range(5):
        editor.type(URI, line, "x = 1\n")
    assert editor.told == []
    await editor.was_told.wait()
    assert len(editor.told) == 1
    editor.type(URI, 9, "y = 1\n")
    editor.recent.close()
    later = Editor()
    later.open(URI, 30)
    later.type(URI, 9, "y = 1\n")
    await later.was_told.wait()
    assert len(editor.told) == 1, "its time came first, but it was closed"


async def test_a_large_paste_is_cut_to_what_the_daemon_takes(editor: Editor) -> None:
    editor.open(URI, 3)
    editor.type(URI, 1, "a_line_of_some_length = 1234567890  # and a comment at its end that is long too\n" * 500)
    (text,) = editor.texts()
    assert 0 < len(text) <= LONGEST_EDIT


EDITS = st.builds(
    lambda start, length, added: ContentChange((start, 0), (start + length, 0), "x\n" * added),
    st.integers(0, 300),
    st.integers(0, 20),
    st.integers(0, 60),
)


@given(st.lists(EDITS, max_size=30))
def test_regions_stay_bounded_apart_and_the_last_edit_is_in_the_first(edits: list[ContentChange]) -> None:
    regions: tuple[Region, ...] = ()
    for edit in edits:
        regions = with_edit(regions, URI, edit)
        assert regions[0].first <= edit.start[0] <= regions[0].last
        assert len(regions) <= MOST_EDITS
        for region in regions:
            assert 0 <= region.first <= region.last < region.first + MAX_REGION_LINES
        spans = sorted((region.first, region.last) for region in regions)
        assert all(one[1] < other[0] for one, other in pairwise(spans))
