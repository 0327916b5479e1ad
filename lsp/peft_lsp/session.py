"""The state of one editor's session: documents, settings, the daemon, suggestions, and work ahead of requests.

Handlers get the session and take a ``DocumentSnapshot`` of the document they work on; no later edit changes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterable

import msgspec

from peft_core.api_types import CompleteRequest, CompleteResponse
from peft_core.code.positions import Encoding
from peft_core.decisions import Decider
from peft_lsp.client import Client
from peft_lsp.daemon_connection import DaemonConnection, DocumentOff, StatusBoard
from peft_lsp.documents import (
    MAX_DOCUMENT_KEY_CHARS,
    MAX_LANGUAGE_CHARS,
    DocumentSnapshot,
    OpenDocuments,
    TextPosition,
    WorkspaceFolders,
)
from peft_lsp.feedback import MAX_SETTLE_S, FeedbackReporter
from peft_lsp.learning import LearningWatcher
from peft_lsp.next_edits import NextEdits
from peft_lsp.notebooks import OpenNotebooks
from peft_lsp.prefetch import Continuations, Prefetch, likely_position
from peft_lsp.recent_edits import RecentEdits
from peft_lsp.refusals import Refusals
from peft_lsp.settings import EditorSettings, SettingsCache
from peft_lsp.silences import Silences

MAX_DETAIL_CHARS = 1000
MAX_CODE_TOKENS = 256
CODE_TIME_BUDGET_MS = 120_000
"""Code from prose gets more time than ghost text: it shows a progress bar, and the user can stop it."""


class Session:
    """All state of one editor's session."""

    def __init__(
        self,
        client: Client,
        *,
        encoding: Encoding,
        options: object,
        folders: Iterable[str],
        purpose: str,
        takes_proposals: bool = False,
    ) -> None:
        """``options``: the client's initialization options, which are its settings until it sends others."""
        self.id = uuid.uuid4().hex
        """Distinguishes this editor's documents from the same documents in another editor."""
        self.purpose = purpose
        """Kind of this editor's completions (``fill`` or ``list``). A newer request supersedes only its own kind."""
        self.takes_proposals = takes_proposals
        """The editor shows proposals that its code actions return."""
        self.client = client
        self.folders = WorkspaceFolders(folders)
        self.documents = OpenDocuments(encoding)
        """All documents, cells of notebooks among them."""
        self.notebooks = OpenNotebooks()
        self.board = StatusBoard(client.show_status)
        self.settings = SettingsCache(options, self._ask_settings, client.warn_once, self._settings_changed)
        self.debounce = Debounce()
        self.daemon = DaemonConnection(self.board)
        self.feedback = FeedbackReporter(self.documents, self.daemon)
        self.continuations = Continuations(self.documents, self.daemon.complete_in_background, client.announce_more)
        self.prefetch = Prefetch(self.warm_up)
        self.recent_edits = RecentEdits(self.documents, self.daemon.context_changed, self.folders.around)
        self.refusals = Refusals()
        self.next_edits = NextEdits(
            self.id,
            documents=self.documents,
            daemon=self.daemon,
            settings=self.settings,
            folders=self.folders,
            wait=self.debounce.wait,
        )
        self.silences = Silences(self.daemon.report_decisions, self.folders.around)
        self.learning = LearningWatcher(self.daemon, client, lambda: self.folders.paths, self.board.learning)
        self.exiting = False
        """The client has sent ``shutdown``."""
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Load the settings, and connect to the daemon if they enable completion."""
        self._loop = asyncio.get_running_loop()
        await self.settings.load()
        await self.client.watch_settings()
        if self.settings.general.enabled:
            self.daemon.start()
        self.learning.start()

    async def shut_down(self) -> None:
        """End all work, report the outcome of the last suggestions, and disconnect from the daemon."""
        self.exiting = True
        self.continuations.close()
        self.prefetch.close()
        self.recent_edits.close()
        self.learning.close()
        self.silences.close()
        await self._report_outcomes()
        await self.daemon.close()

    def settle(self) -> None:
        """Report the outcome of the last suggestions; call it from another thread than the handlers'."""
        if self._loop is not None:
            settled = asyncio.run_coroutine_threadsafe(self._report_outcomes(), self._loop)
            with contextlib.suppress(TimeoutError):
                settled.result(2 * MAX_SETTLE_S)

    async def _report_outcomes(self) -> None:
        await asyncio.gather(self.feedback.close(), self.next_edits.feedback.close())

    def request_at(self, snapshot: DocumentSnapshot, settings: EditorSettings, *, purpose: str) -> CompleteRequest:
        """Make a request at the snapshot's cursor, with the settings for its document."""
        return CompleteRequest(
            prefix=snapshot.prefix,
            suffix=snapshot.suffix,
            language=snapshot.language[:MAX_LANGUAGE_CHARS],
            path=snapshot.real_path,
            workspace=self.folders.around(snapshot.path),
            document=f"{self.id}:{purpose}:{snapshot.uri}"[-MAX_DOCUMENT_KEY_CHARS:],
            line=snapshot.line + 1,
            adapter=settings.adapter,
            max_tokens=settings.max_tokens,
            time_budget_ms=settings.time_budget_ms,
            prose=True,  # the document's settings were checked: see ``EditorSettings.why_off``
        )

    def code_request(
        self, snapshot: DocumentSnapshot, settings: EditorSettings, prefix: str, *, purpose: str
    ) -> CompleteRequest:
        """Make a request for code after ``prefix``, which ends with prose and an indentation.

        The prose is not sent as an ``intent``: within the prefix, the model also sees the code around it, and does not
        write the head of the function, or the class around a method, a second time.
        """
        return msgspec.structs.replace(
            self.request_at(snapshot, settings, purpose=purpose),
            prefix=prefix,
            single_line=False,
            max_tokens=MAX_CODE_TOKENS,
            time_budget_ms=CODE_TIME_BUDGET_MS,
        )

    def may_suggest(self, snapshot: DocumentSnapshot, settings: EditorSettings, *, automatic: bool) -> bool:
        """Return whether something may be suggested at a snapshot's cursor; if not, it is noted why.

        Who asks by hand is also told why suggestions are off, once.
        """
        if snapshot.is_empty_or_binary:
            self.silences.note(snapshot, Decider.DOCUMENT)
        elif (why := settings.why_off(snapshot.file_uri, snapshot.language)) is not None:
            self.silences.note(snapshot, settings.who_turns_off(snapshot.file_uri, snapshot.language), why)
            if not automatic:
                self.client.inform_once(why)
        elif automatic and snapshot.word_follows:
            self.silences.note(snapshot, Decider.IN_WORD)
        else:
            return True
        return False

    async def wait_for_pause(self, snapshot: DocumentSnapshot, milliseconds: int, *, purpose: str) -> bool:
        """Return whether the document is unchanged after a pause; False at once when a newer request comes."""
        try:
            paused = await self.debounce.wait(f"{purpose}:{snapshot.uri}", milliseconds / 1000)
        except asyncio.CancelledError:
            self.silences.note(snapshot, Decider.DELAY)
            raise
        if paused and self.documents.is_current(snapshot):
            return True
        self.silences.note(snapshot, Decider.EDITED if paused else Decider.DELAY)
        return False

    async def complete(self, snapshot: DocumentSnapshot, request: CompleteRequest) -> CompleteResponse | None:
        """Return the daemon's answer for an unchanged document; None, and noted why, if there is none."""

        def drop(response: CompleteResponse) -> None:
            if response.text:
                self.silences.note(snapshot, Decider.CANCELLED, "before the answer came", dropped=response)

        with self.next_edits.completing(snapshot.uri):
            response = await self.daemon.complete(request, drop)
        if response is None:
            self.silences.note(snapshot, Decider.CONNECTION, self.daemon.trouble[:MAX_DETAIL_CHARS])
            return None
        if not self.documents.is_current(snapshot):
            if response.text:
                self.silences.note(snapshot, Decider.EDITED, dropped=response)
            return None
        return response

    async def warm_up(self, uri: str, position: TextPosition | None) -> bool:
        """Have the daemon read the text around a position, if completions are served there; return whether it did."""
        document = self.documents.get(uri)
        if document is None:
            return False
        snapshot = document.around(*likely_position(document, position), self.documents.encoding)
        settings = await self.settings.of(uri)
        if snapshot.is_empty_or_binary or settings.why_off(snapshot.file_uri, snapshot.language) is not None:
            return False
        return await self.daemon.warm(self.request_at(snapshot, settings, purpose=self.purpose))

    def documents_changed(self) -> None:
        """Update the status with the open documents in which suggestions are off."""
        found = (
            (each.uri, self.settings.known(each.uri).why_off(each.file_uri, each.language)) for each in self.documents
        )
        self.board.documents(DocumentOff(uri, why) for uri, why in found if why)

    async def _ask_settings(self, uri: str | None) -> object:
        """Ask for the settings of a document by its file: an editor may know no folder of a notebook's cell."""
        return await self.client.pull_settings(None if uri is None else self.documents.file_uri(uri))

    def _settings_changed(self) -> None:
        self.board.enable(self.settings.enabled_somewhere)
        self.documents_changed()


class Debounce:
    """Pauses between a keystroke and the request (setting ``delayMs``); only the newest request of a key proceeds."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Event] = {}

    async def wait(self, key: str, seconds: float) -> bool:
        """Wait; True after ``seconds``, False at once when a newer request with this key comes.

        With 0 seconds it returns at once, but still ends the wait of an older request.
        """
        if older := self._waiting.pop(key, None):
            older.set()
        if seconds <= 0:
            return True
        newer = self._waiting[key] = asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                await newer.wait()
        except TimeoutError:
            pass
        finally:
            if self._waiting.get(key) is newer:
                del self._waiting[key]
        return not newer.is_set()
