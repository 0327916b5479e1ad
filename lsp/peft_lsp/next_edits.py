"""Next edits of one editor: the history they follow from, requests for one, and what becomes of those that are shown.

A request begins after a pause in typing and when no completion of the document runs; a newer one of the same document
ends its pause. An answer is dropped when the document was changed meanwhile, when other lines stand where it would
change some, and when the user has refused the same edit there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pygls.uris import to_fs_path

from peft_core.api_types import MAX_TEXT, CompleteResponse, FinishReason, Task
from peft_core.code.edits import split_lines
from peft_core.code.positions import content
from peft_core.next_edit_types import NextEditRequest, NextEditResponse, SuggestedEdit
from peft_lsp.daemon_connection import DaemonConnection
from peft_lsp.documents import (
    MAX_DOCUMENT_KEY_CHARS,
    MAX_LANGUAGE_CHARS,
    ContentChange,
    DocumentSnapshot,
    OpenDocument,
    OpenDocuments,
    TextPosition,
    WorkspaceFolders,
    model_text,
    real_path,
)
from peft_lsp.edit_history import EditHistory
from peft_lsp.feedback import FeedbackReporter, SuggestionContext
from peft_lsp.refusals import Refusals
from peft_lsp.settings import EditorSettings, SettingsCache

PAUSE_S = 0.3
"""Shortest pause in typing before a next edit is looked for: it costs more than a completion, and nobody waits."""
PAUSE_IN_WORD_S = 1.0
"""The same while the cursor is right behind a word: half a name, used elsewhere, would be wrong."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlacedEdit:
    """A next edit as an editor makes it: the text from ``start`` to ``end`` becomes ``text``."""

    snapshot: DocumentSnapshot
    """The document with the cursor at ``start``."""
    start: TextPosition
    end: TextPosition
    old: str
    text: str
    """With ``\\n`` line ends."""
    response: NextEditResponse
    latency_ms: float

    @property
    def key(self) -> str:
        """What makes it the same edit as another at its place."""
        return f"{self.old}\0{self.text}\0"

    def at_cursor(self, cursor: DocumentSnapshot) -> CompleteResponse | None:
        """Return it as a completion that replaces the rest of a cursor's line; None if it changes anything else."""
        line, offset = cursor.line, cursor.offset
        head, rest = cursor.text[:offset], cursor.text[offset:]
        new = self.text.removesuffix("\n")
        if self.start == self.end == (line + 1, 0) and not rest:
            return self.as_completion(f"\n{new}", 0)
        same_line = self.start == (line, 0) and self.old.removesuffix("\n") == cursor.text
        if not same_line or len(new) <= offset or not new.startswith(head):
            return None
        return self.as_completion(new[offset:], len(rest))

    def as_completion(self, text: str, replaced: int) -> CompleteResponse:
        """Return the answer as if it were that to a request for a completion."""
        answer = self.response
        return CompleteResponse(
            id=answer.id,
            text=text,
            finish_reason=FinishReason.STOP,
            task=Task.EDIT,
            model=answer.model,
            adapter=answer.adapter,
            replace_after=replaced,
            confidence=answer.confidence,
        )


def pause_before(snapshot: DocumentSnapshot) -> float:
    """Return how long typing has to pause, in seconds, before a next edit is looked for."""
    in_word = snapshot.prefix[-1:].isalnum() or snapshot.prefix.endswith("_")
    return PAUSE_IN_WORD_S if in_word and not snapshot.word_follows else PAUSE_S


def placed_edit(document: OpenDocument, edit: SuggestedEdit) -> tuple[TextPosition, TextPosition, str] | None:
    """Return the range that an edit of whole lines changes, and its text; None where other lines stand there.

    The last line may have no line end: then the edit gives it one only where it would be empty.
    """
    lines, old = document.lines, split_lines(edit.old)
    count = len(lines) - (not lines[-1])
    last = edit.start + len(old)
    if last > count or any(
        model_text(content(line)) != wanted for line, wanted in zip(lines[edit.start : last], old, strict=True)
    ):
        return None
    if last < len(lines):
        return (edit.start, 0), (last, 0), edit.new
    end = (len(lines) - 1, len(lines[-1]))
    text = edit.new if f"\n{edit.new}".endswith("\n\n") else edit.new.removesuffix("\n")
    return ((edit.start, 0), end, text) if old else (end, end, f"\n{text}" if edit.start else text)


class NextEdits:
    """What one editor's session knows of next edits."""

    def __init__(
        self,
        session_id: str,
        *,
        documents: OpenDocuments,
        daemon: DaemonConnection,
        settings: SettingsCache,
        folders: WorkspaceFolders,
        wait: Callable[[str, float], Awaitable[bool]],
    ) -> None:
        """``wait``: a pause under a key; False at once when a newer one begins under it."""
        self._session_id, self._documents, self._daemon, self._folders = session_id, documents, daemon, folders
        self._wait = wait
        self.history = EditHistory(lambda document: why_no_edits(document, settings.known(document.uri)) is None)
        self.refusals = Refusals()
        self.feedback = FeedbackReporter(documents, daemon)
        self.shown_apart = False
        """The editor asks for next edits by themselves, so that they are no inline completions."""
        self._completing: Counter[str] = Counter()
        self._completed: dict[str, asyncio.Event] = {}

    @contextmanager
    def completing(self, uri: str) -> Iterator[None]:
        """Note that a completion of a document runs while this is open."""
        ended = self._completed.setdefault(uri, asyncio.Event())
        self._completing[uri] += 1
        try:
            yield
        finally:
            self._completing[uri] -= 1
            if not self._completing[uri]:
                del self._completing[uri], self._completed[uri]
                ended.set()

    def changed(self, uri: str, changes: Sequence[ContentChange], *, replaced: bool) -> None:
        """Follow the changes of a document; ``replaced``: it was given as a whole."""
        self.feedback.document_changed(uri, changes)
        self.refusals.edited(uri, changes)
        self.history.changed(self._documents.get(uri), changes, replaced=replaced)

    def closing(self, uri: str) -> None:
        """Follow the closing of a document, or its being opened once more."""
        self.feedback.document_closing(uri)
        self.refusals.forget(uri)
        self.history.closed(uri)

    def refuse(self, uri: str, position: TextPosition) -> None:
        """Note that the user refused the edit that is shown at or above a position."""
        if self.refusals.refuse(uri, position):
            self.feedback.dismiss(uri)

    async def find(
        self, snapshot: DocumentSnapshot, settings: EditorSettings, *, automatic: bool, pause_s: float = 0.0
    ) -> PlacedEdit | None:
        """Return the next edit for a cursor; None if there is none, or the document was changed meanwhile.

        ``automatic``: nobody asked by hand, so it must be as likely as the settings want, and not be refused before.
        """
        document = self._documents.get(snapshot.uri)
        if document is None or snapshot.is_empty_or_binary or why_no_edits(document, settings) is not None:
            return None
        if not await self._wait(f"edit:{snapshot.uri}", pause_s):
            return None
        while (ended := self._completed.get(snapshot.uri)) is not None:
            await ended.wait()
        request = self._request(document, snapshot, settings, automatic=automatic)
        if not self._documents.is_current(snapshot) or not request.edits or len(request.text) > MAX_TEXT:
            return None
        began = time.monotonic()
        response = await self._daemon.next_edit(request)
        if response is not None and response.silence is not None:
            log.debug("no next edit: %s", response.silence)
        found = self._placed(document, response, began) if self._documents.is_current(snapshot) else None
        refused = automatic and found is not None and self.refusals.refuses(document, found.snapshot, found.key)
        return None if refused else found

    def _placed(self, document: OpenDocument, response: NextEditResponse | None, began: float) -> PlacedEdit | None:
        """Return the edit of an answer; None without one, and where it does not fit or changes nothing."""
        if response is None or response.edit is None or (place := placed_edit(document, response.edit)) is None:
            return None
        start, end, text = place
        old = model_text(document.between(start, end))
        at = document.around(*start, self._documents.encoding)
        latency_ms = 1000 * (time.monotonic() - began)
        return PlacedEdit(at, start, end, old, text, response, latency_ms) if old != text else None

    def show(self, edit: PlacedEdit, settings: EditorSettings) -> str:
        """Note that an edit is about to be shown; return the id with which the editor reports that it was accepted."""
        self.refusals.shown(edit.snapshot.uri, edit.start, edit.key)
        if settings.feedback in ("off", False):
            return edit.response.id
        answer = edit.as_completion(edit.text, len(edit.old))
        context = SuggestionContext(
            edit.snapshot, "", edit.text, answer, edit.latency_ms, settings.feedback, next_edit=True
        )
        return self.feedback.show(context)

    def _request(
        self, document: OpenDocument, snapshot: DocumentSnapshot, settings: EditorSettings, *, automatic: bool
    ) -> NextEditRequest:
        workspace = self._folders.around(snapshot.path)

        def path_of(uri: str) -> str | None:
            path = to_fs_path(uri)
            return real_path(path) if path is not None and self._folders.around(path) == workspace else None

        return NextEditRequest(
            text=model_text(document.text),
            line=snapshot.line,
            column=snapshot.offset,
            edits=self.history.past_edits(path_of),
            language=snapshot.language[:MAX_LANGUAGE_CHARS],
            path=snapshot.real_path,
            workspace=workspace,
            document=f"{self._session_id}:edit:{snapshot.uri}"[-MAX_DOCUMENT_KEY_CHARS:],
            eagerness=settings.automatic_eagerness if automatic else None,
            adapter=settings.adapter,
        )


def why_no_edits(document: OpenDocument, settings: EditorSettings) -> str | None:
    """Return a sentence on why a document gets no next edits; None if it gets them."""
    if settings.next_edits == "off":
        return "next edits are off: see the setting 'nextEdits'"
    if document.file_uri != document.uri or not document.uri.startswith("file:"):
        return "next edits are for files on this machine, not for cells of notebooks and unsaved documents"
    return settings.why_off(document.file_uri, document.language)
