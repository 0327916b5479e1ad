"""What of a user's changes is kept for next edits: all that was typed lately, no secrets, nothing that was loaded."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsprotocol import types
from pygls.uris import to_fs_path

from peft_core.code.edits import join_lines, split_lines
from peft_core.code.positions import Encoding
from peft_core.next_edit_types import LONGEST_PAST_EDIT, MOST_PAST_EDITS
from peft_lsp.documents import OpenDocument, OpenDocuments, normalize_line_ends
from peft_lsp.edit_history import LONGEST_KEPT_S, MOST_ENTRIES, MOST_LINES, EditHistory

URI, OTHER = "file:///project/a.py", "file:///project/b.py"
Typed = tuple[int, int, int, int, str]


class Editor:
    """Documents whose changes are kept."""

    def __init__(self) -> None:
        self.documents = OpenDocuments(Encoding.UTF16)
        self.now = 0.0
        self.wanted = True
        self.history = EditHistory(lambda _: self.wanted, clock=lambda: self.now)

    def open(self, text: str, uri: str = URI, language: str = "python") -> None:
        self.history.closed(uri)
        self.documents.open(types.TextDocumentItem(uri, language, 1, text))

    def change(self, *edits: Typed, uri: str = URI) -> None:
        changes = [
            types.TextDocumentContentChangePartial(
                types.Range(types.Position(line, column), types.Position(end_line, end_column)), text
            )
            for line, column, end_line, end_column, text in edits
        ]
        self._send(uri, changes)

    def replace(self, text: str) -> None:
        self._send(URI, [types.TextDocumentContentChangeWholeDocument(text)])

    def _send(self, uri: str, changes: Sequence[types.TextDocumentContentChangeEvent]) -> None:
        self.history.changing(self.documents.get(uri))
        document = types.VersionedTextDocumentIdentifier(2, uri)
        done = self.documents.change(types.DidChangeTextDocumentParams(document, changes))
        whole = any(isinstance(each, types.TextDocumentContentChangeWholeDocument) for each in changes)
        self.history.changed(self.documents.get(uri), done, replaced=whole)

    def text(self, uri: str = URI) -> str:
        document = self.documents.get(uri)
        assert isinstance(document, OpenDocument)
        return normalize_line_ends(document.text)

    def undone(self, uri: str = URI) -> str:
        """The text of a document with its history undone, without what ends its last line."""
        lines = split_lines(self.text(uri))
        entries = [each.change for each in self.history.entries if each.path == uri]
        for change in sorted(entries, key=lambda each: -each.start):
            lines = change.inverse.apply(lines)
        return join_lines(lines)

    def sent(self) -> list[tuple[str, int, str, str]]:
        return [(each.path, each.start, each.old, each.new) for each in self.history.past_edits(to_fs_path)]


@pytest.fixture
def editor() -> Editor:
    return Editor()


def test_keystrokes_on_a_line_are_one_edit(editor: Editor) -> None:
    editor.open("def f(old):\n    return old\n")
    editor.change((0, 6, 0, 9, ""))
    for at, letter in enumerate("new"):
        editor.change((0, 6 + at, 0, 6 + at, letter))
    assert editor.sent() == [("/project/a.py", 0, "def f(old):\n", "def f(new):\n")]


def test_lines_typed_at_the_end_are_added_lines_with_and_without_a_last_line_end(editor: Editor) -> None:
    editor.open("a\n")
    editor.change((1, 0, 1, 0, "b"))
    assert editor.sent() == [("/project/a.py", 1, "", "b\n")]
    editor.open("a", OTHER)
    editor.change((0, 1, 0, 1, "\n"), (1, 0, 1, 0, "b"), uri=OTHER)
    assert editor.sent()[1] == ("/project/b.py", 1, "", "b\n")


def test_what_is_changed_back_and_what_only_moves_white_space_is_not_sent(editor: Editor) -> None:
    editor.open("a\nb\nc\nd\n")
    editor.change((0, 1, 0, 1, "x"))
    editor.change((0, 1, 0, 2, ""))
    editor.change((2, 0, 2, 0, "    "))
    assert editor.sent() == []


def test_the_oldest_comes_first_over_all_documents_and_the_newest_are_sent(editor: Editor) -> None:
    editor.open("x\n\n" * 100)
    editor.open("y\n", OTHER)
    editor.change((0, 1, 0, 1, "1"), uri=OTHER)
    for number in range(3):
        editor.change((4 * number, 1, 4 * number, 1, str(number)))
    assert [path for path, *_ in editor.sent()] == ["/project/b.py", *["/project/a.py"] * 3]
    for number in range(100):
        editor.change((2 * number, 1, 2 * number, 1, "z"))
    assert len(editor.sent()) == MOST_PAST_EDITS
    assert len(editor.history.entries) == MOST_ENTRIES
    assert editor.sent()[-1][1] == 198


def test_old_entries_are_dropped(editor: Editor) -> None:
    editor.open("a\n\nb\n")
    editor.change((0, 1, 0, 1, "1"))
    editor.now = LONGEST_KEPT_S / 2
    editor.change((2, 1, 2, 1, "2"))
    editor.now = LONGEST_KEPT_S + 1
    assert [new for *_, new in editor.sent()] == ["b2\n"]


@pytest.mark.parametrize(("uri", "language"), [("file:///project/.env", "sh"), ("file:///project/x", "dotenv")])
def test_files_with_secrets_are_not_followed(editor: Editor, uri: str, language: str) -> None:
    editor.open("A=1\n", uri, language)
    editor.change((0, 3, 0, 3, "2"), uri=uri)
    assert editor.history.entries == ()


def test_an_entry_with_a_secret_is_not_sent_also_when_it_is_gone(editor: Editor) -> None:
    editor.open("a = 1\n\nb = 2\n")
    editor.change((0, 0, 0, 5, 'password = "hunter2-Xk93jdLqPz"'))
    editor.change((2, 4, 2, 5, "3"))
    assert [new for *_, new in editor.sent()] == ["b = 3\n"]
    editor.open('password = "hunter2-Xk93jdLqPz"\n', OTHER)
    editor.change((0, 11, 0, 31, "ask()"), uri=OTHER)
    assert [new for *_, new in editor.sent()] == ["b = 3\n"]


def test_what_was_loaded_is_no_edit_and_ends_the_history_of_its_document(editor: Editor) -> None:
    editor.open("a\nb\n")
    editor.open("a\n", OTHER)
    for load in (
        lambda: editor.replace("c\nd\n"),
        lambda: editor.open("other\n"),
        lambda: editor.change((0, 0, 0, 0, "x" * (LONGEST_PAST_EDIT + 1))),
    ):
        editor.open("a\nb\n")
        editor.change((0, 1, 0, 1, "1"))
        editor.change((0, 1, 0, 1, "1"), uri=OTHER)
        assert len(editor.sent()) == 2
        load()
        editor.history.changing(editor.documents.get(URI))
        assert [path for path, *_ in editor.sent()] == ["/project/b.py"]


def test_a_document_that_is_opened_again_as_it_was_goes_on(editor: Editor) -> None:
    editor.open("a\nb\nc\n")
    editor.change((0, 1, 0, 1, "1"))
    editor.open("a1\nb\nc\n")
    editor.change((2, 1, 2, 1, "2"))
    assert [new for *_, new in editor.sent()] == ["a1\n", "c2\n"]


def test_nothing_is_kept_where_nothing_is_wanted_and_of_very_long_documents(editor: Editor) -> None:
    editor.wanted = False
    editor.open("a\n")
    editor.change((0, 1, 0, 1, "1"))
    assert editor.history.entries == ()
    editor.wanted = True
    editor.open("a\n" * (MOST_LINES + 1))
    editor.change((0, 1, 0, 1, "1"))
    assert editor.history.entries == ()


def test_a_change_of_another_project_is_not_told(editor: Editor) -> None:
    editor.open("a\n")
    editor.change((0, 1, 0, 1, "1"))
    assert editor.history.past_edits(lambda _: None) == []


TEXTS = st.text(st.sampled_from("ab \n\r\u2028\U0001f600"), max_size=12)
EDITS = st.tuples(st.integers(0, 8), st.integers(0, 6), st.integers(0, 8), st.integers(0, 6), TEXTS)


@given(TEXTS, st.lists(st.lists(EDITS, min_size=1, max_size=3), max_size=12))
def test_the_history_always_fits_its_document(text: str, changes: list[list[Typed]]) -> None:
    editor = Editor()
    editor.open(text)
    for each in changes:
        editor.change(*each)
        editor.undone()  # raises ValueError where other lines stand


@given(
    st.text(st.sampled_from("ab \n"), max_size=12),
    st.lists(st.tuples(*[st.integers(0, 8)] * 4, st.text(st.sampled_from("ab \n"), max_size=5)), max_size=20),
)
def test_without_other_line_ends_the_history_leads_back_to_the_first_text(text: str, changes: list[Typed]) -> None:
    editor = Editor()
    editor.open(text)
    for each in changes:
        editor.change(each)
        assert editor.undone() == join_lines(split_lines(text))
