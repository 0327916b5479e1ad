"""Documents follow the editor exactly, and a request sees a bounded piece of them that no later edit changes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsprotocol import types

from peft_core.code.positions import Encoding, content, split_lines, to_column
from peft_lsp.documents import MAX_PREFIX_CHARS, MAX_SUFFIX_CHARS, OpenDocument, OpenDocuments, WorkspaceFolders
from peft_lsp.handlers.initialize import workspace_folders

URI = "file:///project/demo.py"
UTF16 = Encoding.UTF16
texts = st.text(st.sampled_from("ab😀é\n\r\u2028\x0c"), max_size=30)


def open_document(text: str, *, uri: str = URI, version: int = 1) -> OpenDocuments:
    documents = OpenDocuments(UTF16)
    documents.open(types.TextDocumentItem(uri, "python", version, text))
    return documents


def position_of(text: str, offset: int, encoding: Encoding) -> types.Position:
    """The position an editor would send for an offset (one inside ``\\r\\n`` counts as before it)."""
    for number, line in enumerate(split_lines(text)):
        if offset < len(line) or line == content(line):
            return types.Position(number, to_column(content(line), offset, encoding))
        offset -= len(line)
    raise AssertionError("the last line has no end")


def offset_of(text: str, position: types.Position, encoding: Encoding) -> int:
    lines = split_lines(text)
    document = OpenDocument(URI, "python", 1, text)
    number, offset = document.locate(position, encoding)
    return sum(map(len, lines[:number])) + offset


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, list[tuple[int, int, str]]]:
    numbers = st.integers(0, 60)
    return draw(texts), draw(st.lists(st.tuples(numbers, numbers, texts), max_size=4))


@given(edits(), st.sampled_from(list(Encoding)))
def test_any_row_of_edits_leaves_the_text_the_editor_has(
    case: tuple[str, list[tuple[int, int, str]]], encoding: Encoding
) -> None:
    text, changes = case
    document = OpenDocument(URI, "python", 1, text)
    for one, other, new in changes:
        start, end = (position_of(text, min(place, len(text)), encoding) for place in sorted((one, other)))
        document.change([types.TextDocumentContentChangePartial(types.Range(start, end), new)], 2, encoding)
        text = text[: offset_of(text, start, encoding)] + new + text[offset_of(text, end, encoding) :]
        assert document.text == text
        assert document.lines == split_lines(text)


def test_a_change_without_a_range_replaces_everything() -> None:
    documents = open_document("old\n")
    documents.change(
        types.DidChangeTextDocumentParams(
            types.VersionedTextDocumentIdentifier(7, URI), [types.TextDocumentContentChangeWholeDocument("new")]
        )
    )
    document = documents.get(URI)
    assert document is not None
    assert (document.text, document.version) == ("new", 7)


def test_a_document_has_the_usual_name_of_its_language_whatever_the_editor_calls_it() -> None:
    documents = OpenDocuments(UTF16)
    for number, name in enumerate(("cs", "csharp", "c++", "my-own")):
        documents.open(types.TextDocumentItem(f"file:///{number}", name, 1, ""))
    assert [each.language for each in documents] == ["csharp", "csharp", "cpp", "my-own"]


def test_a_document_behind_a_link_is_known_by_its_real_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real/other.py").symlink_to(tmp_path / "elsewhere.py")
    for name in ("a.py", "other.py"):
        uri = (tmp_path / "link" / name).as_uri()
        document = open_document("x", uri=uri).get(uri)
        assert document is not None
        snapshot = document.around(0, 0, UTF16)
        assert snapshot.path == str(tmp_path / "link" / name)
        assert snapshot.real_path == str(tmp_path.resolve() / "real" / name), "a linked file keeps its own name"


def test_a_form_feed_does_not_begin_a_line() -> None:
    snapshot = open_document("a = 1\n\x0c\nb = \u2028\nc").snapshot(URI, types.Position(3, 1))
    assert snapshot is not None
    assert snapshot.prefix.endswith("\nc")


def test_a_cursor_after_an_emoji_splits_the_text_behind_it() -> None:
    snapshot = open_document('x = "😀" + y\n').snapshot(URI, types.Position(0, 11))
    assert snapshot is not None
    assert (snapshot.prefix, snapshot.suffix) == ('x = "😀" + ', "y\n")
    assert snapshot.after(1) == types.Position(0, 12)


def test_a_place_after_the_cursor_is_found_across_lines_in_client_columns() -> None:
    snapshot = open_document("f(\r\n😀)\r\nz").snapshot(URI, types.Position(0, 2))
    assert snapshot is not None
    assert snapshot.after(0) == types.Position(0, 2)
    assert snapshot.after(3) == types.Position(1, 3)
    assert snapshot.after(1_000) == types.Position(2, 1)


def test_the_model_sees_plain_newlines_and_the_editor_gets_its_own() -> None:
    snapshot = open_document("def f():\r\n    pass\r\n").snapshot(URI, types.Position(1, 4))
    assert snapshot is not None
    assert (snapshot.prefix, snapshot.suffix) == ("def f():\n    ", "pass\n")
    assert snapshot.with_line_ends("a\nb") == "a\r\nb"
    assert open_document("x\n").snapshot(URI, types.Position(1, 0)).with_line_ends("a\nb") == "a\nb"  # type: ignore[union-attr]


def test_half_a_character_can_be_sent_as_utf8() -> None:
    snapshot = open_document("x = '\ud83d'").snapshot(URI, types.Position(0, 7))
    assert snapshot is not None
    assert snapshot.prefix.encode() == "x = '\ufffd'".encode()


@given(texts, st.integers(0, 50), st.integers(0, 50))
def test_a_position_anywhere_gives_a_snapshot_of_the_whole_small_document(text: str, line: int, column: int) -> None:
    snapshot = open_document(text).snapshot(URI, types.Position(line, column))
    assert snapshot is not None
    assert snapshot.prefix + snapshot.suffix == text.replace("\r\n", "\n").replace("\r", "\n")
    assert snapshot.prefix.count("\n") == snapshot.line


def test_a_huge_document_is_cut_at_line_starts_around_the_cursor() -> None:
    lines = [f"line_{number} = {number}\n" for number in range(200_000)]
    snapshot = open_document("".join(lines)).snapshot(URI, types.Position(100_000, 4))
    assert snapshot is not None
    assert MAX_PREFIX_CHARS - 40 < len(snapshot.prefix) <= MAX_PREFIX_CHARS
    assert MAX_SUFFIX_CHARS - 40 < len(snapshot.suffix) <= MAX_SUFFIX_CHARS
    assert snapshot.prefix.startswith("line_")
    assert snapshot.prefix.endswith("\nline")
    assert snapshot.suffix.endswith("\n")


def test_a_large_document_takes_few_times_its_size_also_while_all_of_it_is_replaced() -> None:
    line = "value = compute(12345, 'text of some length')  # a line\n"
    text, other = line * 40_000, line.replace("1", "2") * 40_000
    tracemalloc.start()
    try:
        document = OpenDocument("file:///a.py", "python", 1, text)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(text)
        document.change([types.TextDocumentContentChangeWholeDocument(other)], 2, UTF16)
        resting, peak = tracemalloc.get_traced_memory()
        assert (resting < 3 * len(text), peak < 6 * len(text)) == (True, True)
        assert document.text == other
    finally:
        tracemalloc.stop()


def test_a_huge_line_is_cut_inside() -> None:
    snapshot = open_document("x" * 1_000_000).snapshot(URI, types.Position(0, 500_000))
    assert snapshot is not None
    assert (len(snapshot.prefix), len(snapshot.suffix)) == (MAX_PREFIX_CHARS, MAX_SUFFIX_CHARS)
    assert snapshot.position(snapshot.offset) == types.Position(0, 500_000)


def test_a_snapshot_keeps_its_text_and_is_no_longer_current_after_an_edit() -> None:
    documents = open_document("a\n")
    snapshot = documents.snapshot(URI, types.Position(1, 0))
    assert snapshot is not None
    assert documents.is_current(snapshot)
    at = types.Position(0, 1)
    documents.change(
        types.DidChangeTextDocumentParams(
            types.VersionedTextDocumentIdentifier(2, URI),
            [types.TextDocumentContentChangePartial(types.Range(at, at), "b")],
        )
    )
    assert snapshot.prefix == "a\n"
    assert not documents.is_current(snapshot)
    documents.close(URI)
    assert documents.snapshot(URI, at) is None
    assert not documents.is_current(snapshot)


def test_only_a_file_has_a_path() -> None:
    place = types.Position(0, 0)
    file = open_document("", uri="file:///tmp/a%20b.py").snapshot("file:///tmp/a%20b.py", place)
    unsaved = open_document("", uri="untitled:Untitled-1").snapshot("untitled:Untitled-1", place)
    assert file is not None
    assert unsaved is not None
    assert file.path == "/tmp/a b.py"
    assert unsaved.path is None


def test_edits_of_a_document_that_is_not_open_are_ignored() -> None:
    documents = OpenDocuments(UTF16)
    documents.change(
        types.DidChangeTextDocumentParams(
            types.VersionedTextDocumentIdentifier(2, URI), [types.TextDocumentContentChangeWholeDocument("x")]
        )
    )
    assert documents.get(URI) is None


@given(texts, st.integers(0, 40), st.integers(0, 40))
def test_a_selection_is_the_text_between_two_places_without_the_white_space_around_it(
    text: str, one: int, other: int
) -> None:
    document = OpenDocument(URI, "python", 1, text)
    places = [position_of(text, min(place, len(text)), UTF16) for place in sorted((one, other))]
    begin, end = (offset_of(text, place, UTF16) for place in places)
    (line, offset), selected = document.selected(types.Range(*places), UTF16)
    assert selected == text[begin:end].strip()
    if selected:
        start = sum(map(len, document.lines[:line])) + offset
        assert text[start : start + len(selected)] == selected


OUTER, INNER = "file:///code", "file:///code/inner%20one"


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("/code/a.py", "/code"),
        ("/code/inner one/deep/a.py", "/code/inner one"),
        ("/code/inner one", "/code"),
        ("/codebase/a.py", None),
        ("/a.py", None),
        (None, None),
    ],
)
def test_the_innermost_folder_counts(path: str | None, folder: str | None) -> None:
    assert WorkspaceFolders([OUTER, INNER]).around(path) == folder
    assert WorkspaceFolders([INNER, OUTER]).around(path) == folder


def test_folders_that_are_closed_or_on_another_machine_do_not_count() -> None:
    some = WorkspaceFolders([OUTER, "vscode-remote://host/elsewhere"])
    assert some.around("/elsewhere/a.py") is None
    some.change([OUTER, "file:///never/there"], ["file:///new"])
    assert some.around("/code/a.py") is None
    assert some.around("/new/a.py") == "/new"


def test_a_path_longer_than_the_daemon_takes_is_no_folder() -> None:
    long = "/x" * 3000
    assert WorkspaceFolders([f"file://{long}"]).around(f"{long}/a.py") is None


@pytest.mark.parametrize(
    ("params", "uris"),
    [
        ({"workspaceFolders": [{"uri": OUTER, "name": "a"}, {"uri": INNER, "name": "b"}], "rootUri": "file:///x"},
         [OUTER, INNER]),
        ({"workspaceFolders": None, "rootUri": OUTER}, [OUTER]),
        ({"workspaceFolders": [], "rootUri": OUTER}, []),
        ({"rootUri": None}, []),
        ({"workspaceFolders": [None, {"name": "no uri"}, {"uri": 3}]}, []),
    ],
)  # fmt: skip
def test_older_clients_name_one_root(params: dict[str, object], uris: list[str]) -> None:
    assert workspace_folders(params) == uris
