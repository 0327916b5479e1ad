"""An editor for tests: the real `peft-daemon lsp` behind pytest-lsp's client, which checks both sides' capabilities."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lsprotocol import types
from pygls.protocol import default_converter
from pytest_lsp.client import DEFAULT_CLIENT_FEATURES, LanguageClient, register_lsp_features
from pytest_lsp.client import progress as work_done_progress

COMMAND = (sys.executable, "-m", "peft_daemon", "lsp")

INLINE = types.TextDocumentClientCapabilities(inline_completion=types.InlineCompletionClientCapabilities())
WORKSPACE = types.WorkspaceClientCapabilities(
    configuration=True,
    apply_edit=True,
    workspace_edit=types.WorkspaceEditClientCapabilities(document_changes=True),
    did_change_configuration=types.DidChangeConfigurationClientCapabilities(dynamic_registration=True),
)
QUESTIONS = types.ShowMessageRequestClientCapabilities(types.ClientShowMessageActionItemOptions(True))
NOTEBOOKS = types.NotebookDocumentClientCapabilities(types.NotebookDocumentSyncClientCapabilities())
MODERN = types.ClientCapabilities(
    text_document=INLINE,
    notebook_document=NOTEBOOKS,
    workspace=WORKSPACE,
    window=types.WindowClientCapabilities(work_done_progress=True, show_message=QUESTIONS),
)
"""An editor that can all this server uses."""


class Editor:
    """One running language server and what it told."""

    def __init__(self) -> None:
        # As `make_test_lsp_client` makes it, but with partial results too.
        self.client = LanguageClient(converter_factory=default_converter)
        features = {**DEFAULT_CLIENT_FEATURES, types.PROGRESS: partial(self._on_progress)}
        register_lsp_features(self.client, features)
        self.mores: list[dict[str, Any]] = []
        self.partial_results: list[dict[str, Any]] = []
        self.statuses: list[dict[str, Any]] = []
        self.edits: list[types.WorkspaceEdit] = []
        self.registrations: list[types.Registration] = []
        self.takes_edits = True
        self.questions: list[types.ShowMessageRequestParams] = []
        self.answer: str | None = None
        """The button that is chosen for a question; None: it is dismissed."""
        self._news = asyncio.Event()
        self._versions: dict[str, int] = {}
        # pygls writes attributes onto its handlers, which a bound method does not take.
        self.client.feature("peft-daemon/status")(partial(self._on_status))
        self.client.feature("peft-daemon/more")(partial(self._on_more))
        self.client.feature(types.WORKSPACE_APPLY_EDIT)(partial(self._on_edit))
        self.client.feature(types.CLIENT_REGISTER_CAPABILITY)(partial(self._on_registration))
        self.client.feature(types.WINDOW_SHOW_MESSAGE_REQUEST)(partial(self._on_question))

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The server's process."""
        assert self.client._server is not None
        return self.client._server

    async def start(
        self,
        environ: Mapping[str, str],
        *,
        capabilities: types.ClientCapabilities = MODERN,
        options: Any = None,
        settings: Any = None,
        folders: Sequence[str] = (),
        command: Sequence[str] = COMMAND,
    ) -> types.InitializeResult:
        """Start the server and say hello; ``settings`` is what it finds when it asks for its section."""
        self.client.set_configuration(settings, section="peft-daemon")
        await self.client.start_io(*command, env={**os.environ, **environ})
        workspace = [types.WorkspaceFolder(uri, uri) for uri in folders]
        params = types.InitializeParams(
            capabilities=capabilities, initialization_options=options, workspace_folders=workspace
        )
        return await self.client.initialize_session(params)

    def open(self, uri: str, text: str, language: str = "python") -> None:
        """Show a document."""
        self._versions[uri] = 1
        self.client.text_document_did_open(
            types.DidOpenTextDocumentParams(types.TextDocumentItem(uri, language, 1, text))
        )

    def open_notebook(self, uri: str, cells: Mapping[str, tuple[str, str]]) -> None:
        """Show a notebook; ``cells`` has the language and the text of each by its URI, in their order."""
        kinds, texts = [], []
        for cell, (language, text) in cells.items():
            markup = language == "markdown"
            kinds.append(
                types.NotebookCell(types.NotebookCellKind.Markup if markup else types.NotebookCellKind.Code, cell)
            )
            texts.append(types.TextDocumentItem(cell, language, 1, text))
        document = types.NotebookDocument(uri, "jupyter-notebook", 1, kinds)
        self.client.notebook_document_did_open(types.DidOpenNotebookDocumentParams(document, texts))

    def edit_cell(self, notebook: str, uri: str, start: tuple[int, int], end: tuple[int, int], text: str) -> None:
        """Replace a range of a cell."""
        self._versions[uri] = self._versions.get(uri, 1) + 1
        change = types.TextDocumentContentChangePartial(types.Range(types.Position(*start), types.Position(*end)), text)
        identity = types.VersionedTextDocumentIdentifier(self._versions[uri], uri)
        cells = types.NotebookDocumentCellChanges(
            text_content=[types.NotebookDocumentCellContentChanges(identity, [change])]
        )
        self.client.notebook_document_did_change(
            types.DidChangeNotebookDocumentParams(
                types.VersionedNotebookDocumentIdentifier(self._versions[uri], notebook),
                types.NotebookDocumentChangeEvent(cells=cells),
            )
        )

    def edit(self, uri: str, start: tuple[int, int], end: tuple[int, int], text: str) -> None:
        """Replace a range."""
        self._versions[uri] += 1
        change = types.TextDocumentContentChangePartial(types.Range(types.Position(*start), types.Position(*end)), text)
        self.client.text_document_did_change(
            types.DidChangeTextDocumentParams(types.VersionedTextDocumentIdentifier(self._versions[uri], uri), [change])
        )

    def save(self, uri: str) -> None:
        """Write a document to the disk."""
        self.client.text_document_did_save(types.DidSaveTextDocumentParams(types.TextDocumentIdentifier(uri)))

    def move(self, uri: str, line: int, character: int) -> None:
        """Put the cursor somewhere."""
        place = {"uri": uri, "position": {"line": line, "character": character}}
        self.client.protocol.notify("peft-daemon/cursor", place)

    def dismiss(self, uri: str, line: int, character: int, *, next_edit: bool = False) -> None:
        """Refuse the suggestion that is shown."""
        place = {"uri": uri, "position": {"line": line, "character": character}, "nextEdit": next_edit}
        self.client.protocol.notify("peft-daemon/dismissed", place)

    def inline_params(
        self, uri: str, line: int, character: int, *, automatic: bool = False
    ) -> types.InlineCompletionParams:
        """Parameters of a request for ghost text."""
        kind = types.InlineCompletionTriggerKind.Automatic if automatic else types.InlineCompletionTriggerKind.Invoked
        return types.InlineCompletionParams(
            types.InlineCompletionContext(kind), types.TextDocumentIdentifier(uri), types.Position(line, character)
        )

    async def inline(
        self, uri: str, line: int, character: int, *, automatic: bool = False
    ) -> list[types.InlineCompletionItem]:
        """Ghost text at a place."""
        answer = await self.client.text_document_inline_completion_async(
            self.inline_params(uri, line, character, automatic=automatic)
        )
        assert isinstance(answer, types.InlineCompletionList)
        return list(answer.items)

    async def next_edit(self, uri: str, line: int, character: int, *, automatic: bool = False) -> list[dict[str, Any]]:
        """The next edit of a document, as plugins for next edits ask for it."""
        asked = {
            "textDocument": {"uri": uri, "version": self._versions[uri]},
            "position": {"line": line, "character": character},
            "context": {"triggerKind": 2 if automatic else 1},
        }
        answer = await self.client.protocol.send_request_async("textDocument/copilotInlineEdit", asked)
        return [_plain(edit) for edit in answer.edits]

    async def command(self, name: str, *arguments: Any) -> Any:
        """Run a command of the server."""
        return await self.client.workspace_execute_command_async(types.ExecuteCommandParams(name, list(arguments)))

    async def status(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first status, of those told so far or later, that is wanted."""
        seen = 0
        while True:
            for status in self.statuses[seen:]:
                if wanted(status):
                    return status
            seen = len(self.statuses)
            self._news.clear()
            await self._news.wait()

    async def news(self) -> None:
        """Wait for the next notification."""
        self._news.clear()
        await self._news.wait()

    async def ready(self) -> None:
        """Wait until the model is loaded."""
        status = await self.status(lambda each: each["state"] in ("idle", "error"))
        assert status["state"] == "idle", status

    async def leave(self) -> int | None:
        """Shut down as the protocol says; returns the exit code."""
        await self.client.shutdown_async(None)
        self.client.exit(None)
        return await self.process.wait()

    async def close(self) -> None:
        """End the server whatever state it is in."""
        if self.client._server is None:
            return
        if self.process.returncode is None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self.leave(), 10)
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        await self.client.stop()

    async def more(self) -> dict[str, Any]:
        """The next time the server has more of what it suggested."""
        seen = len(self.mores)
        while len(self.mores) == seen:
            await self.news()
        return self.mores[seen]

    def _on_more(self, params: Any) -> None:
        place = {"line": params.position.line, "character": params.position.character}
        self.mores.append({"uri": params.uri, "version": params.version, "position": place})
        self._news.set()

    def _on_progress(self, params: types.ProgressParams) -> None:
        if isinstance(params.value, dict) and "kind" not in params.value:
            self.partial_results.append(params.value)
            self._news.set()
        else:
            work_done_progress(self.client, params)

    def _on_status(self, params: Any) -> None:
        self.statuses.append({name: getattr(params, name) for name in params._fields})
        self._news.set()

    def _on_edit(self, params: types.ApplyWorkspaceEditParams) -> types.ApplyWorkspaceEditResult:
        self.edits.append(params.edit)
        return types.ApplyWorkspaceEditResult(
            self.takes_edits, failure_reason=None if self.takes_edits else "it is read-only"
        )

    def _on_question(self, params: types.ShowMessageRequestParams) -> types.MessageActionItem | None:
        self.questions.append(params)
        self._news.set()
        return next((each for each in params.actions or () if each.title == self.answer), None)

    def _on_registration(self, params: types.RegistrationParams) -> None:
        self.registrations.extend(params.registrations)


@contextlib.asynccontextmanager
async def editor(environ: Mapping[str, str], **options: Any) -> AsyncIterator[Editor]:
    """A started editor; see ``Editor.start``."""
    one = Editor()
    try:
        await one.start(environ, **options)
        yield one
    finally:
        await one.close()


def applied(text: str, item: types.InlineCompletionItem) -> str:
    """``text`` after the item was accepted, computed in UTF-16 columns as an editor does."""
    assert item.range is not None
    lines = text.split("\n")

    def offset(place: types.Position) -> int:
        line = lines[place.line].encode("utf-16-le")[: 2 * place.character].decode("utf-16-le")
        return sum(len(each) + 1 for each in lines[: place.line]) + len(line)

    assert isinstance(item.insert_text, str)
    return text[: offset(item.range.start)] + item.insert_text + text[offset(item.range.end) :]


def taken(text: str, proposal: dict[str, Any]) -> str:
    """``text`` after a proposal of ``peft-daemon.propose`` was taken."""
    start, end = (types.Position(**proposal["range"][side]) for side in ("start", "end"))
    return applied(text, types.InlineCompletionItem(proposal["newText"], range=types.Range(start, end)))


def uri_of(path: Path) -> str:
    """The URI of a file."""
    return path.absolute().as_uri()


def _plain(value: Any) -> Any:
    """What pygls made an object of, as it was."""
    if hasattr(value, "_asdict"):
        return {name: _plain(each) for name, each in value._asdict().items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value
