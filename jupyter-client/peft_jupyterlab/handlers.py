"""``POST peft-daemon/complete``: one suggestion at the cursor, asked of the daemon by its own client.

Authentication and the check of the XSRF token are those of every handler of the Jupyter server. A request that the
browser gives up ends at the daemon too.
"""

from __future__ import annotations

import asyncio
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from lsprotocol import types
from pygls.uris import from_fs_path
from tornado.web import HTTPError, authenticated

from peft_core.api_types import CompleteRequest, CompleteResponse, Eagerness, Scope
from peft_core.code.languages import language_of_document
from peft_core.code.positions import Encoding
from peft_core.errors import PeftDaemonError
from peft_daemon.client import DaemonClient
from peft_lsp.documents import DocumentSnapshot, position_after
from peft_lsp.notebooks import Notebook

TIME_BUDGET_MS = 30_000
"""Most time for one suggestion; JupyterLab has its own, shorter limit in its settings."""

CLIENT = "peft_daemon_client"
"""The server's setting that holds the client, which all requests share; a new one is made after a fault."""


class WireCell(msgspec.Struct, frozen=True):
    """A cell as the browser has it; ``language`` is empty where the file's name says it."""

    language: str
    code: bool
    text: str


class Question(msgspec.Struct, frozen=True):
    """Body of the request: the cells of a file, and the text of one of them before and after the cursor."""

    path: str
    cells: list[WireCell]
    index: int
    before: str
    after: str
    automatic: bool

    def snapshot(self, file_uri: str) -> DocumentSnapshot:
        """Return the cell with the cursor, as the language server sees it; raises HTTPError if there is none."""
        if not 0 <= self.index < len(self.cells):
            raise HTTPError(400, "there is no such cell")
        kinds, texts = [], []
        for number, each in enumerate(self.cells):
            uri, text = f"{file_uri}#{number}", self.before + self.after if number == self.index else each.text
            kinds.append(
                types.NotebookCell(types.NotebookCellKind.Code if each.code else types.NotebookCellKind.Markup, uri)
            )
            language = each.language or language_of_document(PurePosixPath(self.path).name) or "plaintext"
            texts.append(types.TextDocumentItem(uri, language, 0, text))
        notebook = Notebook(types.NotebookDocument(file_uri, "jupyter-notebook", 0, kinds), texts)
        cell = notebook.cells[self.index]
        return cell.around(*position_after((0, 0), self.before), Encoding.UTF16)


class CompleteHandler(APIHandler):
    """Answers one request; the client is the process's own and is kept between requests."""

    auth_resource = "contents"
    _asking: asyncio.Task[CompleteResponse] | None = None

    @authenticated
    @authorized
    async def post(self) -> None:
        """Return the suggestion as ``text``, empty for none; a fault of the daemon is a 503 with what to do."""
        try:
            question = msgspec.json.decode(self.request.body, type=Question)
        except msgspec.DecodeError as error:
            raise HTTPError(400, str(error)) from None
        snapshot = question.snapshot(self._uri(question.path))
        request = CompleteRequest(
            prefix=snapshot.prefix,
            suffix=snapshot.suffix,
            language=snapshot.language,
            path=snapshot.real_path,
            document=f"jupyter:{snapshot.uri}"[-4096:],
            line=snapshot.line + 1,
            automatic=question.automatic,
            eagerness=Eagerness.AUTO if question.automatic else None,
            silent_in=list(Scope) if question.automatic else [],
            time_budget_ms=TIME_BUDGET_MS,
        )
        try:
            self._asking = asyncio.ensure_future(self._complete(request))
            response = await self._asking
        except asyncio.CancelledError:
            return  # nobody waits for the answer
        except PeftDaemonError as error:
            self.settings.pop(CLIENT, None)
            raise HTTPError(503, error.line, reason="peft-daemon does not answer") from None
        self.finish({"text": insertable(response, snapshot)})

    def on_connection_close(self) -> None:
        """End the request at the daemon when the browser has given it up."""
        if self._asking is not None:
            self._asking.cancel()

    async def _complete(self, request: CompleteRequest) -> CompleteResponse:
        if CLIENT not in self.settings:
            self.settings[CLIENT] = await DaemonClient.connect()
        client: DaemonClient = self.settings[CLIENT]
        return await client.complete(request)

    def _uri(self, path: str) -> str:
        root: Any = getattr(self.contents_manager, "root_dir", None)
        return (from_fs_path(str(Path(root) / path.lstrip("/"))) if root else None) or f"jupyter:{path}"


def insertable(response: CompleteResponse, snapshot: DocumentSnapshot) -> str:
    """Return the text to insert at the cursor: JupyterLab overwrites nothing, so what is there already is left out.

    Empty if the suggestion would have to overwrite something else.
    """
    replaced = snapshot.replaced(response.replace_after)
    return response.text.removesuffix(replaced) if response.text.endswith(replaced) else ""
