"""What this server does otherwise than pygls: documents, commands and malformed requests.

- Documents: pygls cuts lines where the protocol does not (form feeds, U+2028) and copies the whole text for each edit;
  here ``documents.Documents`` holds them.
- Commands: pygls answers a cancelled command and lets it run on; here it is cancelled, and it reads its own arguments.
- A request whose parameters cannot be read is answered with InvalidParams instead of not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams
from pygls.protocol import LanguageServerProtocol, lsp_method

if TYPE_CHECKING:
    from peft_lsp.language_server import PeftLanguageServer


class Protocol(LanguageServerProtocol):
    """The pygls protocol with our documents and commands."""

    _server: PeftLanguageServer

    @lsp_method(types.TEXT_DOCUMENT_DID_OPEN)
    def lsp_text_document__did_open(self, params: types.DidOpenTextDocumentParams) -> None:
        """Take over a document."""
        # Some clients open one anew without closing it: places in its text mean nothing in the other text.
        self._server.feedback.close(params.text_document.uri)
        self._server.documents.open(params.text_document)
        self._server.warming.opened(params.text_document.uri)
        self._server.note_documents()

    @lsp_method(types.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: types.DidChangeTextDocumentParams) -> None:
        """Apply the editor's edits."""
        edits = self._server.documents.change(params)
        self._server.following.stop(params.text_document.uri)
        self._server.feedback.edited(params.text_document.uri, edits)
        self._server.warming.edited(params.text_document.uri, edits)
        self._server.recent_edits.edited(params.text_document.uri, edits)

    @lsp_method(types.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: types.DidCloseTextDocumentParams) -> None:
        """Forget a document."""
        self._server.following.stop(params.text_document.uri)
        self._server.warming.closed(params.text_document.uri)
        self._server.feedback.close(params.text_document.uri)
        self._server.recent_edits.closing(params.text_document.uri)
        self._server.documents.close(params.text_document.uri)
        self._server.settings.forget(params.text_document.uri)
        self._server.note_documents()

    @lsp_method(types.WORKSPACE_EXECUTE_COMMAND)
    async def lsp_workspace__execute_command(  # type: ignore[override]  # pygls takes any kind of handler
        self, params: types.ExecuteCommandParams
    ) -> Any:
        """Run a command; its handler gets the parameters as they came."""
        handler = self.fm.commands.get(params.command)
        if handler is None:
            raise JsonRpcInvalidParams(f"unknown command {params.command!r}")
        return await handler(params)

    def structure_message(self, data: dict[str, Any]) -> Any:
        """A message from its JSON; answers a request that cannot be read."""
        try:
            return super().structure_message(data)
        except JsonRpcException as error:
            if "id" in data and "method" in data:
                self._send_response(data["id"], error=error.to_response_error())
            raise
