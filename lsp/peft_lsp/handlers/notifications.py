"""Notifications of the client: documents, the cursor, settings and folders."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from lsprotocol import types

from peft_lsp import CURSOR_NOTIFICATION, SETTINGS_SECTION
from peft_lsp.session import Session

log = logging.getLogger(__name__)


async def initialized(session: Session, _: types.InitializedParams) -> None:
    """``initialized``: load the settings and connect to the daemon."""
    await session.start()


def did_open(session: Session, params: types.DidOpenTextDocumentParams) -> None:
    """``textDocument/didOpen``: add a document."""
    # Some clients open a document again without closing it; positions in its old text are invalid then.
    session.feedback.document_closing(params.text_document.uri)
    session.documents.open(params.text_document)
    session.prefetch.opened(params.text_document.uri)
    session.documents_changed()


def did_change(session: Session, params: types.DidChangeTextDocumentParams) -> None:
    """``textDocument/didChange``: apply the editor's edits."""
    uri = params.text_document.uri
    changes = session.documents.change(params)
    session.continuations.stop(uri)
    session.feedback.document_changed(uri, changes)
    session.prefetch.edited(uri, changes)
    session.recent_edits.edited(uri, changes)


def did_save(session: Session, params: types.DidSaveTextDocumentParams) -> None:
    """``textDocument/didSave``: note that the file was written."""
    session.prefetch.saved(params.text_document.uri)
    session.recent_edits.saved(params.text_document.uri)


def did_close(session: Session, params: types.DidCloseTextDocumentParams) -> None:
    """``textDocument/didClose``: forget a document."""
    uri = params.text_document.uri
    session.continuations.stop(uri)
    session.prefetch.closed(uri)
    session.feedback.document_closing(uri)
    session.recent_edits.closing(uri)
    session.documents.close(uri)
    session.settings.forget(uri)
    session.documents_changed()


class CursorParams(msgspec.Struct, frozen=True):
    """Parameters of ``peft-daemon/cursor``."""

    uri: str
    line: int
    character: int


def cursor_moved(session: Session, params: Any) -> None:
    """``peft-daemon/cursor``: the cursor was moved without an edit. Unreadable parameters are logged."""
    try:
        fields = {"uri": params.uri, "line": params.position.line, "character": params.position.character}
        cursor = msgspec.convert(fields, CursorParams)
    except (AttributeError, msgspec.ValidationError) as error:
        log.warning("%s: %s", CURSOR_NOTIFICATION, error)
        return
    if (document := session.documents.get(cursor.uri)) is not None:
        position = types.Position(max(cursor.line, 0), cursor.character)
        session.prefetch.moved(cursor.uri, document.locate(position, session.documents.encoding))


async def did_change_configuration(session: Session, params: types.DidChangeConfigurationParams) -> None:
    """``workspace/didChangeConfiguration``: load the settings again."""
    pushed = params.settings.get(SETTINGS_SECTION) if isinstance(params.settings, dict) else None
    await session.settings.load(pushed)
    if session.settings.general.enabled:
        session.daemon.start()


async def did_change_workspace_folders(session: Session, params: types.DidChangeWorkspaceFoldersParams) -> None:
    """``workspace/didChangeWorkspaceFolders``: update the folders, and drop settings, which may depend on them."""
    removed, added = params.event.removed, params.event.added
    session.folders.change([folder.uri for folder in removed], [folder.uri for folder in added])
    session.settings.forget_documents()
