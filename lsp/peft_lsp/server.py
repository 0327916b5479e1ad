"""The language server put together: which module answers which message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

from lsprotocol import types
from pygls.exceptions import JsonRpcException

from peft_lsp import prefetch, settings
from peft_lsp.documents import WorkspaceFolders
from peft_lsp.end_of_input import DelayedEnd
from peft_lsp.framing import ReadableInput
from peft_lsp.handlers import (
    text_document_code_action,
    text_document_completion,
    text_document_inline_completion,
    workspace_execute_command,
)
from peft_lsp.handlers.initialize import (
    FirstAnswerFilter,
    Handshake,
    position_encoding,
    shows_ghost_text,
    wants_completion_list,
    workspace_folders,
)
from peft_lsp.handlers.workspace_execute_command import register_propose
from peft_lsp.language_server import PeftLanguageServer

LONGEST_LOGGED = 60
"""Characters of a value in a line of the library's log: names of methods and ids are shorter, messages longer."""


def serve(handshake: Handshake, stdin: BinaryIO, stdout: BinaryIO, log_level: str) -> int:
    """Serve an editor whose ``initialize`` has been answered, until it leaves; returns the exit code."""
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(name)s %(levelname)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(without_documents)
    if log_level != "debug":
        logging.getLogger("pygls").setLevel(logging.ERROR)  # it tells of every message, and of each late cancellation
        for handler in logging.getLogger().handlers:
            handler.addFilter(_one_line_for_the_clients_mistakes)
    server = create(handshake.params)
    messages = cast(BinaryIO, ReadableInput(handshake.for_the_library(), stdin, stdout))
    server.start_io(
        cast(BinaryIO, DelayedEnd(messages, server.settle)),
        cast(BinaryIO, FirstAnswerFilter(handshake.id, stdout)),
    )
    return 0 if server.leaving else 1


def _one_line_for_the_clients_mistakes(record: logging.LogRecord) -> bool:
    """Leave out where in the library a message could not be read or was refused."""
    error = record.exc_info[1] if record.exc_info else None
    unreadable = str(record.msg).startswith(("Unable to deserialize message", "Unable to handle message"))
    if record.name.startswith("pygls") and (unreadable or isinstance(error, JsonRpcException)):
        line = record.getMessage().partition("\n")[0]
        record.msg, record.args = line + (f": {error}" if error else ""), None
        record.exc_info = record.exc_text = None
    return True


def create(params: Mapping[str, Any]) -> PeftLanguageServer:
    """A server with all its handlers for a client with these ``InitializeParams`` (as JSON)."""
    server = PeftLanguageServer(
        encoding=position_encoding(params),
        options=params.get("initializationOptions"),
        folders=WorkspaceFolders(workspace_folders(params)),
        purpose="fill" if shows_ghost_text(params) else "list",
    )
    server.feature(types.INITIALIZED)(_initialized)
    server.feature(types.SHUTDOWN)(_shutdown)
    text_document_inline_completion.register(server)
    if wants_completion_list(params):
        text_document_completion.register(server)
    text_document_code_action.register(server)
    register_propose(server)
    workspace_execute_command.register(server)
    settings.register(server)
    prefetch.register(server)
    server.feature(types.TEXT_DOCUMENT_DID_SAVE)(_saved)
    return server


def without_documents(record: logging.LogRecord) -> bool:
    """Take the contents of messages out of a record of pygls: documents and suggestions do not belong into a log."""
    if record.name.startswith("pygls") and record.args:
        given = record.args if isinstance(record.args, tuple) else (record.args,)
        record.args = tuple(each if _is_short(each) else "…" for each in given)
    return True


def _is_short(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and len(value) <= LONGEST_LOGGED)


async def _initialized(ls: PeftLanguageServer, _: types.InitializedParams) -> None:
    ls.loop = asyncio.get_running_loop()
    await ls.settings.load()
    await settings.watch(ls)
    if ls.settings.general.enabled:
        ls.daemon.start()


def _saved(ls: PeftLanguageServer, params: types.DidSaveTextDocumentParams) -> None:
    ls.warming.saved(params.text_document.uri)
    ls.recent_edits.saved(params.text_document.uri)


async def _shutdown(ls: PeftLanguageServer, _: None) -> None:
    ls.leaving = True
    ls.following.close()
    ls.warming.close()
    ls.recent_edits.close()
    await ls.feedback.leave()
    await ls.daemon.close()
