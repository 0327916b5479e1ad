"""A cell is a document of its own, whose model reads the cells around it in the notebook's order."""

from __future__ import annotations

from typing import Any

from lsprotocol import types

from fakes.fake_editor import FakeEditor
from peft_core.api_types import CompleteRequest, CompleteResponse, FinishReason, Task
from peft_core.code.positions import Encoding
from peft_lsp.documents import MAX_PREFIX_CHARS, DocumentSnapshot
from peft_lsp.handlers import notifications
from peft_lsp.session import Session

NOTEBOOK = "file:///project/study.ipynb"
CODE, MARKUP = types.NotebookCellKind.Code, types.NotebookCellKind.Markup
Written = tuple[str, str]
"""The language of a cell, and its text."""


def cell_uri(name: str) -> str:
    return f"vscode-notebook-cell:/project/study.ipynb#{name}"


def item(name: str, language: str, text: str) -> types.TextDocumentItem:
    return types.TextDocumentItem(cell_uri(name), language, 1, text)


def kind_of(name: str, language: str) -> types.NotebookCell:
    return types.NotebookCell(MARKUP if language == "markdown" else CODE, cell_uri(name))


def opened(settings: dict[str, Any] | None = None, **written: Written) -> Session:
    """A session with a notebook of these cells, in their order."""
    session = Session(
        FakeEditor(settings or {}).client,
        encoding=Encoding.UTF16,
        options=None,
        folders=["file:///project"],
        purpose="fill",
    )
    document = types.NotebookDocument(
        NOTEBOOK, "jupyter-notebook", 1, [kind_of(name, language) for name, (language, _) in written.items()]
    )
    texts = [item(name, language, text) for name, (language, text) in written.items()]
    notifications.notebook_did_open(session, types.DidOpenNotebookDocumentParams(document, texts))
    return session


def changed(session: Session, **cells: Any) -> None:
    change = types.NotebookDocumentChangeEvent(cells=types.NotebookDocumentCellChanges(**cells))
    identity = types.VersionedNotebookDocumentIdentifier(2, NOTEBOOK)
    notifications.notebook_did_change(session, types.DidChangeNotebookDocumentParams(identity, change))


def rearranged(session: Session, start: int, deleted: int, *names: str, **structure: Any) -> None:
    array = types.NotebookCellArrayChange(start, deleted, [kind_of(name, "python") for name in names])
    changed(session, structure=types.NotebookDocumentCellChangeStructure(array, **structure))


def around(session: Session, name: str, line: int, character: int) -> DocumentSnapshot:
    snapshot = session.documents.snapshot(cell_uri(name), types.Position(line, character))
    assert snapshot is not None
    return snapshot


async def test_the_model_reads_the_cells_before_and_after_in_order() -> None:
    session = opened(
        a=("python", "import math"), b=("markdown", "Then"), c=("python", "x = \ny = 2"), d=("python", "print(x)")
    )
    snapshot = around(session, "c", 0, 4)
    assert snapshot.prefix == "import math\n\n# Then\n\nx = "
    assert snapshot.suffix == "\ny = 2\n\nprint(x)"
    assert (snapshot.line, snapshot.offset, snapshot.text) == (0, 4, "x = ")


async def test_a_request_is_of_the_notebooks_file_folder_and_settings() -> None:
    session = opened({"adapter": "mine"}, a=("python", "x = "))
    request = session.request_at(around(session, "a", 0, 4), await session.settings.of(cell_uri("a")), purpose="fill")
    assert (request.path, request.workspace) == ("/project/study.ipynb", "/project")
    assert request.adapter == "mine"
    assert cell_uri("a") in (request.document or "")


async def test_settings_are_asked_for_by_the_notebooks_address() -> None:
    asked: list[str | None] = []
    session = opened(a=("python", "x = "))

    async def note(uri: str | None) -> object:
        asked.append(uri)
        return None

    session.client.pull_settings = note  # type: ignore[method-assign]
    await session.settings.of(cell_uri("a"))
    await session.settings.of("file:///project/other.py")
    assert asked == [NOTEBOOK, "file:///project/other.py"]


async def test_a_cell_is_in_the_language_of_its_magic_and_reads_others_as_comments() -> None:
    session = opened(a=("python", "import os"), b=("python", "%%sql\nselect "), c=("python", "%%sql\nselect 2"))
    snapshot = around(session, "b", 1, 7)
    assert snapshot.language == "sql"
    assert snapshot.prefix == "-- import os\n\n-- %%sql\nselect "
    assert snapshot.suffix == "\n\n-- %%sql\nselect 2"


async def test_lines_for_ipython_change_no_position_and_open_no_bracket() -> None:
    session = opened(a=("python", "!echo '(\n%time f(\nx = \n!ls {\n"), b=("python", "y = (1"))
    snapshot = around(session, "a", 2, 4)
    assert snapshot.prefix == "# !echo '(\n# %time f(\nx = "
    assert snapshot.suffix == "\n# !ls {\n\n\n# y = (1"
    on_the_line = around(session, "a", 1, 8)
    assert on_the_line.prefix == "# !echo '(\n%time f("


async def test_a_suggestion_overwrites_nothing_of_the_next_cell() -> None:
    session = opened(a=("python", "f(x)"), b=("python", "))))"))
    snapshot = around(session, "a", 0, 3)
    assert snapshot.suffix.startswith(")\n\n")
    assert snapshot.replaced(1) == snapshot.replaced(99) == ")"
    assert snapshot.after(99) == types.Position(0, 4)


async def test_an_edited_cell_is_read_as_it_is_now() -> None:
    session = opened(a=("python", "one = 1"), b=("python", ""))
    assert around(session, "b", 0, 0).prefix == "one = 1\n\n"
    edit = types.TextDocumentContentChangePartial(types.Range(types.Position(0, 0), types.Position(0, 3)), "two")
    identity = types.VersionedTextDocumentIdentifier(2, cell_uri("a"))
    changed(session, text_content=[types.NotebookDocumentCellContentChanges(identity, [edit])])
    assert around(session, "b", 0, 0).prefix == "two = 1\n\n"


async def test_cells_are_added_moved_and_removed() -> None:
    session = opened(a=("python", "a"), b=("python", "b"), c=("python", "c"))
    rearranged(session, 1, 0, "new", did_open=[item("new", "python", "new")])
    assert around(session, "c", 0, 0).prefix == "a\n\nnew\n\nb\n\n"
    rearranged(session, 0, 4, "c", "b", "new", "a")
    assert around(session, "a", 0, 0).prefix == "c\n\nb\n\nnew\n\n"
    rearranged(session, 1, 1, did_close=[types.TextDocumentIdentifier(cell_uri("b"))])
    assert around(session, "a", 0, 0).prefix == "c\n\nnew\n\n"
    assert session.documents.get(cell_uri("b")) is None


async def test_a_cell_that_becomes_prose_is_a_comment() -> None:
    session = opened(a=("python", "a"), b=("python", "b"))
    assert around(session, "b", 0, 0).prefix == "a\n\n"
    changed(session, data=[types.NotebookCell(MARKUP, cell_uri("a"))])
    assert around(session, "b", 0, 0).prefix == "# a\n\n"


async def test_a_closed_notebook_leaves_no_document_behind() -> None:
    session = opened(a=("python", "a"), b=("python", "b"))
    closing = types.DidCloseNotebookDocumentParams(types.NotebookDocumentIdentifier(NOTEBOOK), [])
    notifications.notebook_did_close(session, closing)
    assert list(session.documents) == []
    assert session.notebooks.get(NOTEBOOK) is None


async def test_a_cell_outside_of_any_notebook_stands_alone_as_before() -> None:
    session = opened(a=("python", "a"))
    lone = types.TextDocumentItem("vscode-notebook-cell:/project/lone.ipynb#x", "python", 1, "x = ")
    notifications.did_open(session, types.DidOpenTextDocumentParams(lone))
    snapshot = session.documents.snapshot(lone.uri, types.Position(0, 4))
    assert snapshot is not None
    assert (snapshot.prefix, snapshot.suffix, snapshot.path) == ("x = ", "", None)


async def test_a_cell_written_to_a_file_of_secrets_is_off_and_read_by_no_other() -> None:
    session = opened(a=("python", "%%writefile .env\nKEY="), b=("python", "x = "))
    settings = await session.settings.of(cell_uri("a"))
    snapshot = around(session, "a", 1, 4)
    assert "hold secrets" in (settings.why_off(snapshot.file_uri, snapshot.language) or "")
    assert around(session, "b", 0, 4).prefix == "x = "


async def test_the_surroundings_are_bounded_by_whole_cells() -> None:
    long = "x = 1\n" * (MAX_PREFIX_CHARS // 12)
    session = opened(a=("python", long), b=("python", long), c=("python", "y = 1"), d=("python", "z = "))
    prefix = around(session, "d", 0, 4).prefix
    assert len(prefix) <= MAX_PREFIX_CHARS
    assert prefix == long.strip() + "\n\ny = 1\n\nz = "


async def test_feedback_of_a_cell_is_followed_in_that_cell() -> None:
    session = opened(a=("python", "a = 1"), b=("python", "x = "))
    recorded: list[Any] = []

    async def record(feedback: Any) -> None:
        recorded.append(feedback)

    session.daemon.record = record  # type: ignore[method-assign]
    from peft_lsp.feedback import SuggestionContext

    response = CompleteResponse(
        id="1", text="a + 1", finish_reason=FinishReason.STOP, task=Task.FILL, model="m", adapter=None
    )
    session.feedback.show(SuggestionContext(around(session, "b", 0, 4), "", "a + 1", response, 1.0))
    insert = types.TextDocumentContentChangePartial(types.Range(types.Position(0, 4), types.Position(0, 4)), "a + 1")
    identity = types.VersionedTextDocumentIdentifier(2, cell_uri("b"))
    changed(session, text_content=[types.NotebookDocumentCellContentChanges(identity, [insert])])
    await session.feedback.close()
    assert [(each.outcome, each.accepted, each.path) for each in recorded] == [("accepted", 5, "/project/study.ipynb")]


async def test_what_is_read_ahead_in_a_cell_is_what_a_request_there_would_be() -> None:
    session = opened(a=("python", "a = 1"), b=("python", "x = "))
    asked: list[CompleteRequest] = []

    async def note(request: CompleteRequest) -> bool:
        asked.append(request)
        return True

    session.daemon.warm = note  # type: ignore[method-assign]
    assert await session.warm_up(cell_uri("b"), (0, 4))
    settings = await session.settings.of(cell_uri("b"))
    assert asked == [session.request_at(around(session, "b", 0, 4), settings, purpose="fill")]
