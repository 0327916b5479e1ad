"""What the handlers of one editor's session share: documents, settings, the daemon and the status."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from functools import partial

import msgspec
from lsprotocol import types
from pygls.exceptions import JsonRpcException, PyglsError
from pygls.lsp.server import LanguageServer

from peft_core import __version__
from peft_lsp import names
from peft_lsp.daemon_connection import DaemonConnection
from peft_lsp.documents import DocumentSnapshot, OpenDocuments, WorkspaceFolders
from peft_lsp.feedback import MAX_SETTLE_S, FeedbackReporter
from peft_lsp.pauses import Debounce
from peft_lsp.positions import Encoding
from peft_lsp.prefetch import Continuations, Prefetch, warm
from peft_lsp.recent_edits import RecentEdits
from peft_lsp.requests import why_off
from peft_lsp.settings import SettingsCache, pull
from peft_lsp.status import DocumentOff, LoadingProgress, ServerState, Status, StatusBoard
from peft_lsp.transport import Protocol

log = logging.getLogger(__name__)


class PeftLanguageServer(LanguageServer):
    """The server of one editor."""

    def __init__(self, *, encoding: Encoding, options: object, folders: WorkspaceFolders, purpose: str) -> None:
        super().__init__(names.SERVER, __version__, types.TextDocumentSyncKind.Incremental, protocol_cls=Protocol)
        self.id = uuid.uuid4().hex
        """Tells this editor's documents from those another editor has open."""
        self.purpose = purpose
        """Of the completions this editor asks for, which tells them from others of the same document."""
        self.folders = folders
        self.documents = OpenDocuments(encoding)
        self.board = StatusBoard(self._status_changed)
        self.settings = SettingsCache(options, partial(pull, self), self.warn_once, self._settings_changed)
        """Those of the client's initialization options until it tells others."""
        self.pauses = Debounce()
        self.daemon = DaemonConnection(self.board)
        self.feedback = FeedbackReporter(self.documents, self.daemon)
        self.following = Continuations(self.documents, self.daemon.go_on, self._tell_more)
        self.warming = Prefetch(partial(warm, self))
        self.recent_edits = RecentEdits(self.documents, self.daemon.context_changed, self.folders.around)
        self.loading = LoadingProgress(self.work_done_progress)
        self.leaving = False
        """The client asked for the end."""
        self.loop: asyncio.AbstractEventLoop | None = None
        """Where the handlers run; None before ``initialized``."""
        self._warned: set[str] = set()

    def settle(self) -> None:
        """Tell the daemon what is left to tell, from a thread other than that of the handlers; takes a moment."""
        if self.loop is not None:
            told = asyncio.run_coroutine_threadsafe(self.feedback.leave(), self.loop)
            with contextlib.suppress(TimeoutError):
                told.result(2 * MAX_SETTLE_S)

    def warn_once(self, message: str) -> None:
        """Show the user a message; a second time it is only logged."""
        log.warning("%s", message)
        if message not in self._warned:
            self._warned.add(message)
            self.warn(message)

    def inform_once(self, message: str) -> None:
        """Tell the user something; a second time it is only logged."""
        log.info("%s", message)
        if message not in self._warned:
            self._warned.add(message)
            self.inform(message)

    def inform(self, message: str) -> None:
        """Tell the user something that is no fault."""
        self.window_show_message(types.ShowMessageParams(types.MessageType.Info, f"peft-daemon: {message}"))

    def warn(self, message: str) -> None:
        """Show the user a message."""
        self.window_show_message(types.ShowMessageParams(types.MessageType.Warning, f"peft-daemon: {message}"))

    def report_server_error(self, error: Exception, source: type[PyglsError | JsonRpcException]) -> None:
        """A message that could not be handled: worth a line in the log, never a dialog over the user's work."""
        log.error("%s: %s", source.__name__, error)

    @property
    def shows_progress(self) -> bool:
        """Whether the client has a place for progress the server begins."""
        window = self.client_capabilities.window
        return window is not None and bool(window.work_done_progress)

    def _tell_more(self, snapshot: DocumentSnapshot) -> None:
        place = snapshot.position(snapshot.offset)
        facts = {"line": place.line, "character": place.character}
        self.protocol.notify(names.MORE, {"uri": snapshot.uri, "version": snapshot.version, "position": facts})

    def note_documents(self) -> None:
        """Have the status say in which open documents suggestions are off; call it when they or settings change."""
        found = ((each.uri, why_off(each.uri, each.language, self.settings.known(each.uri))) for each in self.documents)
        self.board.documents(DocumentOff(uri, why) for uri, why in found if why)

    def _settings_changed(self) -> None:
        self.board.enable(self.settings.enabled_somewhere)
        self.note_documents()

    def _status_changed(self, status: Status) -> None:
        self.protocol.notify(names.STATUS, msgspec.to_builtins(status))
        if self.shows_progress:
            self.loading.follow(status)
        if status.state is ServerState.ERROR:
            self.warn_once(status.message)
