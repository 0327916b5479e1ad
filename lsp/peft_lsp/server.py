"""The language server put together: which handler answers which message, and how it differs from pygls.

- Documents: pygls cuts lines where the protocol does not (form feeds, U+2028) and copies the whole text for each edit;
  here ``documents.OpenDocuments`` holds them.
- Commands: pygls answers a cancelled command and lets it run on; here it is cancelled, and it reads its own arguments.
- A request whose parameters cannot be read is answered with InvalidParams instead of not at all.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, BinaryIO, cast

import psutil
from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams, JsonRpcMethodNotFound, PyglsError
from pygls.lsp.server import LanguageServer
from pygls.protocol import LanguageServerProtocol, lsp_method

from peft_core import __version__
from peft_core.process_identity import ProcessIdentity
from peft_lsp import (
    ACTION_KINDS,
    COMPLETION_TRIGGERS,
    CURSOR_NOTIFICATION,
    DISMISSED_NOTIFICATION,
    INLINE_EDIT_METHOD,
    INLINE_EDIT_NOTIFICATIONS,
    SERVER_NAME,
)
from peft_lsp.client import Client
from peft_lsp.handlers import notifications
from peft_lsp.handlers.initialize import (
    position_encoding,
    shows_ghost_text,
    shows_questions,
    takes_proposals,
    wants_completion_list,
    workspace_folders,
)
from peft_lsp.handlers.text_document_code_action import code_action
from peft_lsp.handlers.text_document_completion import completion
from peft_lsp.handlers.text_document_inline_completion import inline_completion
from peft_lsp.handlers.text_document_inline_edit import inline_edit, take_no_notice
from peft_lsp.handlers.workspace_execute_command import COMMAND_HANDLERS, with_protocol_errors
from peft_lsp.session import Session
from peft_lsp.transport import DelayedEnd, FirstAnswerFilter, Handshake, MessageInput

log = logging.getLogger(__name__)

EDITOR_POLL_S = 2.0
"""Interval at which it is looked whether the editor's process lives."""
MAX_LOGGED_CHARS = 60
"""Longer values are left out of the library's log: names of methods and ids are shorter, messages longer."""


class PeftProtocol(LanguageServerProtocol):
    """The pygls protocol with our documents and commands."""

    _server: PeftLanguageServer

    @lsp_method(types.TEXT_DOCUMENT_DID_OPEN)
    def lsp_text_document__did_open(self, params: types.DidOpenTextDocumentParams) -> None:
        """Add a document."""
        notifications.did_open(self._server.session, params)

    @lsp_method(types.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: types.DidChangeTextDocumentParams) -> None:
        """Apply the editor's edits."""
        notifications.did_change(self._server.session, params)

    @lsp_method(types.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: types.DidCloseTextDocumentParams) -> None:
        """Forget a document."""
        notifications.did_close(self._server.session, params)

    @lsp_method(types.NOTEBOOK_DOCUMENT_DID_OPEN)
    def lsp_notebook_document__did_open(self, params: types.DidOpenNotebookDocumentParams) -> None:
        """Add a notebook."""
        notifications.notebook_did_open(self._server.session, params)

    @lsp_method(types.NOTEBOOK_DOCUMENT_DID_CHANGE)
    def lsp_notebook_document__did_change(self, params: types.DidChangeNotebookDocumentParams) -> None:
        """Follow a notebook's cells."""
        notifications.notebook_did_change(self._server.session, params)

    @lsp_method(types.NOTEBOOK_DOCUMENT_DID_CLOSE)
    def lsp_notebook_document__did_close(self, params: types.DidCloseNotebookDocumentParams) -> None:
        """Forget a notebook."""
        notifications.notebook_did_close(self._server.session, params)

    @lsp_method(types.WORKSPACE_EXECUTE_COMMAND)
    async def lsp_workspace__execute_command(  # type: ignore[override]  # pygls takes any kind of handler
        self, params: types.ExecuteCommandParams
    ) -> Any:
        """Run a command; its handler gets the unchanged parameters."""
        handler = self.fm.commands.get(params.command)
        if handler is None:
            raise JsonRpcInvalidParams(f"unknown command {params.command!r}")
        return await handler(params)

    def structure_message(self, data: dict[str, Any]) -> Any:
        """Convert a message from JSON; a request that cannot be read is answered with an error."""
        try:
            return super().structure_message(data)
        except JsonRpcException as error:
            if "id" in data and "method" in data:
                self._send_response(data["id"], error=error.to_response_error())
            raise


class PeftLanguageServer(LanguageServer):
    """The server of one editor."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        """``params``: the client's ``InitializeParams``, as JSON."""
        notebooks = types.NotebookDocumentSyncOptions([types.NotebookDocumentFilterWithNotebook("*")], save=True)
        super().__init__(
            SERVER_NAME,
            __version__,
            types.TextDocumentSyncKind.Incremental,
            notebook_document_sync=notebooks,
            protocol_cls=PeftProtocol,
        )
        self.session = Session(
            Client(self, shows_questions=shows_questions(params)),
            encoding=position_encoding(params),
            options=params.get("initializationOptions"),
            folders=workspace_folders(params),
            purpose="fill" if shows_ghost_text(params) else "list",
            takes_proposals=takes_proposals(params),
        )

    def report_server_error(self, error: Exception, source: type[PyglsError | JsonRpcException]) -> None:
        """Log a message that could not be handled; it is never shown in a dialog."""
        # Some editors ask for what was never announced (Kate, for the symbols of each document) and show each error.
        level = logging.INFO if isinstance(error, JsonRpcMethodNotFound) else logging.ERROR
        log.log(level, "%s: %s", source.__name__, error)


def create(params: Mapping[str, Any]) -> PeftLanguageServer:
    """Create a server with all its handlers for a client with these ``InitializeParams`` (as JSON)."""
    server = PeftLanguageServer(params)
    session = server.session

    def handle(method: str, handler: Callable[..., Any], options: object = None) -> None:
        server.feature(method, options)(partial(handler, session))

    handle(types.INITIALIZED, notifications.initialized)
    handle(types.SHUTDOWN, _shutdown)
    # Without options pygls would not announce it.
    handle(types.TEXT_DOCUMENT_INLINE_COMPLETION, inline_completion, types.InlineCompletionOptions())
    if wants_completion_list(params):
        triggers = types.CompletionOptions(trigger_characters=list(COMPLETION_TRIGGERS))
        handle(types.TEXT_DOCUMENT_COMPLETION, completion, triggers)
    kinds = types.CodeActionOptions(code_action_kinds=list(ACTION_KINDS))
    handle(types.TEXT_DOCUMENT_CODE_ACTION, code_action, kinds)
    handle(types.TEXT_DOCUMENT_DID_SAVE, notifications.did_save)
    handle(types.NOTEBOOK_DOCUMENT_DID_SAVE, notifications.notebook_did_save)
    handle(types.WORKSPACE_DID_CHANGE_CONFIGURATION, notifications.did_change_configuration)
    handle(types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS, notifications.did_change_workspace_folders)
    handle(INLINE_EDIT_METHOD, inline_edit)
    for told in INLINE_EDIT_NOTIFICATIONS:
        handle(told, take_no_notice)
    handle(CURSOR_NOTIFICATION, notifications.cursor_moved)
    handle(DISMISSED_NOTIFICATION, notifications.dismissed)
    for name, command in COMMAND_HANDLERS.items():
        server.command(name)(partial(with_protocol_errors(command), session))
    return server


async def _shutdown(session: Session, _: None) -> None:
    await session.shut_down()


def serve(handshake: Handshake, stdin: BinaryIO, stdout: BinaryIO, log_level: str) -> int:
    """Serve an editor whose ``initialize`` has been answered, until it disconnects; return the exit code."""
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(name)s %(levelname)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(without_documents)
    if log_level != "debug":
        logging.getLogger("pygls").setLevel(logging.ERROR)  # it logs every message, and each late cancellation
        for handler in logging.getLogger().handlers:
            handler.addFilter(_shorten_client_errors)
    server = create(handshake.params)
    _end_with_editor(handshake.params.get("processId"), server.session.settle)
    messages = cast(BinaryIO, MessageInput(handshake.initialize_message(), stdin, stdout))
    server.start_io(
        cast(BinaryIO, DelayedEnd(messages, server.session.settle)),
        cast(BinaryIO, FirstAnswerFilter(handshake.id, stdout)),
    )
    return 0 if server.session.exiting else 1


def _end_with_editor(pid: object, settle: Callable[[], None]) -> None:
    """End this process when the editor's has ended, though something else may hold its end of stdin open."""
    if not isinstance(pid, int) or not psutil.pid_exists(pid):
        return  # none, or one outside of this container
    try:
        editor = ProcessIdentity.of(psutil.Process(pid))
    except psutil.Error:
        return

    def watch() -> None:
        while editor.find() is not None:
            time.sleep(EDITOR_POLL_S)
        settle()
        os._exit(1)

    threading.Thread(target=watch, name="editor", daemon=True).start()


def without_documents(record: logging.LogRecord) -> bool:
    """Remove the contents of messages from a log record of pygls: documents and suggestions must not be logged."""
    if record.name.startswith("pygls") and record.args:
        given = record.args if isinstance(record.args, tuple) else (record.args,)
        record.args = tuple(each if _is_short(each) else "…" for each in given)
    return True


def _is_short(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and len(value) <= MAX_LOGGED_CHARS)


def _shorten_client_errors(record: logging.LogRecord) -> bool:
    """Remove the library's stack trace from records of messages that could not be read or were refused."""
    error = record.exc_info[1] if record.exc_info else None
    unreadable = str(record.msg).startswith(("Unable to deserialize message", "Unable to handle message"))
    if record.name.startswith("pygls") and (unreadable or isinstance(error, JsonRpcException)):
        line = record.getMessage().partition("\n")[0]
        record.msg, record.args = line + (f": {error}" if error else ""), None
        record.exc_info = record.exc_text = None
    return True
