"""Notifications of the client: documents, notebooks, the cursor, settings and folders."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import msgspec
from lsprotocol import types

from peft_core.code.languages import language_id
from peft_lsp import CURSOR_NOTIFICATION, DISMISSED_NOTIFICATION, SETTINGS_SECTION
from peft_lsp.documents import OpenDocument, TextPosition
from peft_lsp.session import Session

log = logging.getLogger(__name__)


async def initialized(session: Session, _: types.InitializedParams) -> None:
    """``initialized``: load the settings and connect to the daemon."""
    await session.start()


def did_open(session: Session, params: types.DidOpenTextDocumentParams) -> None:
    """``textDocument/didOpen``: add a document."""
    item = params.text_document
    _open(session, (OpenDocument(item.uri, language_id(item.language_id), item.version, item.text),))


def did_change(session: Session, params: types.DidChangeTextDocumentParams) -> None:
    """``textDocument/didChange``: apply the editor's edits."""
    uri = params.text_document.uri
    session.next_edits.history.changing(session.documents.get(uri))
    changes = session.documents.change(params)
    session.continuations.stop(uri)
    session.feedback.document_changed(uri, changes)
    session.refusals.edited(uri, changes)
    session.prefetch.edited(uri, changes)
    session.recent_edits.edited(uri, changes)
    whole = any(isinstance(each, types.TextDocumentContentChangeWholeDocument) for each in params.content_changes)
    session.next_edits.changed(uri, changes, replaced=whole)


def did_save(session: Session, params: types.DidSaveTextDocumentParams) -> None:
    """``textDocument/didSave``: note that the file was written."""
    session.prefetch.saved(params.text_document.uri)
    session.recent_edits.saved(params.text_document.uri)


def did_close(session: Session, params: types.DidCloseTextDocumentParams) -> None:
    """``textDocument/didClose``: forget a document."""
    _close(session, (params.text_document.uri,))


def notebook_did_open(session: Session, params: types.DidOpenNotebookDocumentParams) -> None:
    """``notebookDocument/didOpen``: add a notebook and its cells."""
    if (before := session.notebooks.get(params.notebook_document.uri)) is not None:
        _close(session, [each.uri for each in before.cells])
    _open(session, session.notebooks.open(params).cells)


def notebook_did_change(session: Session, params: types.DidChangeNotebookDocumentParams) -> None:
    """``notebookDocument/didChange``: follow the cells: their order, their kinds and their texts."""
    notebook, change = session.notebooks.get(params.notebook_document.uri), params.change.cells
    if notebook is None or change is None:
        return
    if (structure := change.structure) is not None:
        closed = notebook.remove(each.uri for each in structure.did_close or ())
        _close(session, closed)
        notebook.rearrange(structure.array)
        _open(session, notebook.add(structure.did_open or ()))
    notebook.update(change.data or ())
    for text in change.text_content or ():
        did_change(session, types.DidChangeTextDocumentParams(text.document, text.changes))


def notebook_did_save(session: Session, params: types.DidSaveNotebookDocumentParams) -> None:
    """``notebookDocument/didSave``: note that the notebook's file was written."""
    if (notebook := session.notebooks.get(params.notebook_document.uri)) is not None:
        for cell in notebook.cells:
            session.prefetch.saved(cell.uri)
        session.recent_edits.saved(notebook.uri)


def notebook_did_close(session: Session, params: types.DidCloseNotebookDocumentParams) -> None:
    """``notebookDocument/didClose``: forget a notebook and its cells."""
    if (notebook := session.notebooks.close(params.notebook_document.uri)) is not None:
        _close(session, [each.uri for each in notebook.cells])


def _open(session: Session, documents: Iterable[OpenDocument]) -> None:
    for document in documents:
        # Some clients open a document again without closing it; positions in its old text are invalid then.
        session.feedback.document_closing(document.uri)
        session.refusals.forget(document.uri)
        session.next_edits.closing(document.uri)
        session.documents.add(document)
        session.prefetch.opened(document.uri)
    session.documents_changed()


def _close(session: Session, uris: Iterable[str]) -> None:
    for uri in uris:
        session.continuations.stop(uri)
        session.prefetch.closed(uri)
        session.feedback.document_closing(uri)
        session.recent_edits.closing(uri)
        session.refusals.forget(uri)
        session.next_edits.closing(uri)
        session.documents.close(uri)
        session.settings.forget(uri)
    session.documents_changed()


class PlaceParams(msgspec.Struct, frozen=True):
    """Parameters of the notifications that name a place."""

    uri: str
    line: int
    character: int


def cursor_moved(session: Session, params: Any) -> None:
    """``peft-daemon/cursor``: the cursor was moved without an edit. Unreadable parameters are logged."""
    if (place := _place(session, CURSOR_NOTIFICATION, params)) is not None:
        session.prefetch.moved(*place)


def dismissed(session: Session, params: Any) -> None:
    """``peft-daemon/dismissed``: the user refused what is shown, and with it what would grow out of it.

    With ``nextEdit: true`` it is the next edit that is shown there.
    """
    if (place := _place(session, DISMISSED_NOTIFICATION, params)) is None:
        return
    uri, position = place
    if getattr(params, "nextEdit", None) is True:
        session.next_edits.refuse(uri, position)
        return
    session.continuations.stop(uri)
    if session.refusals.refuse(uri, position):
        session.feedback.dismiss(uri)


def _place(session: Session, method: str, params: Any) -> tuple[str, TextPosition] | None:
    """Return an open document's URI and the position in it; None, and logged, for parameters that name none."""
    try:
        fields = {"uri": params.uri, "line": params.position.line, "character": params.position.character}
        place = msgspec.convert(fields, PlaceParams)
    except (AttributeError, msgspec.ValidationError) as error:
        log.warning("%s: %s", method, error)
        return None
    if (document := session.documents.get(place.uri)) is None:
        return None
    position = types.Position(max(place.line, 0), place.character)
    return place.uri, document.locate(position, session.documents.encoding)


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
