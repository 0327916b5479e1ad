"""Work ahead of requests: prefetch of prompts around the cursor, and the rest of suggestions that were shown early.

Prefetch has the model read the text around the cursor before a completion is asked for there: when a document is
opened, when the cursor rests at another position (``peft-daemon/cursor``), when the document is saved, and after edits
without a request for a completion. There is one cursor, so there is at most one prefetch at a time: a newer one
replaces it, and any completion or edit ends it. The user sees neither prefetches nor their errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from peft_core.api_types import CompleteRequest, CompleteResponse
from peft_core.code.positions import content
from peft_lsp.documents import (
    ContentChange,
    DocumentSnapshot,
    OpenDocument,
    OpenDocuments,
    TextPosition,
    begins_with_word,
    position_after,
    shift_position,
)

AFTER_OPEN_S = 0.1
"""Delay after a document is opened; an editor that sends its cursor has sent it by then."""
AFTER_CURSOR_MOVE_S = 0.1
"""How long the cursor must rest."""
AFTER_EDIT_S = 1.0
"""Delay after an edit, if no completion is asked for."""
HEAD_LINES = 40
"""Lines that are read of a document whose cursor is not known; they help at any position below."""

WarmUp = Callable[[str, TextPosition | None], Awaitable[bool]]
"""Have the text around a position of a document read (None: unknown position); returns whether it was read."""


class Prefetch:
    """Decides when and where to read ahead; it must be told of all events of documents."""

    def __init__(self, warm_up: WarmUp) -> None:
        self._warm_up = warm_up
        self._cursors: dict[str, TextPosition] = {}
        self._current = ""
        """URI of the document with the last event."""
        self._sends_cursor = False
        """Whether this editor reports its cursor's position."""
        self._read: tuple[str, TextPosition | None] | None = None
        """The document and position whose text the model has read last."""
        self._task: asyncio.Task[None] | None = None

    def opened(self, uri: str) -> None:
        """Read the head of an opened document, unless the editor sends its cursor."""
        if not self._sends_cursor:
            self._begin(uri, AFTER_OPEN_S)

    def moved(self, uri: str, position: TextPosition) -> None:
        """Read the text around the cursor's new position, once it rests there."""
        self._sends_cursor = True
        self._cursors[uri] = position
        self._begin(uri, AFTER_CURSOR_MOVE_S)

    def edited(self, uri: str, changes: Sequence[ContentChange]) -> None:
        """Follow the cursor through edits, and read its position once they pause."""
        for edit in changes:
            cursor = self._cursors.get(uri)
            elsewhere = cursor is not None and not edit.start <= cursor <= edit.end
            self._cursors[uri] = (
                shift_position(cursor, edit) if cursor and elsewhere else position_after(edit.start, edit.text)
            )
        if changes:
            self._read = None
            self._begin(uri, AFTER_EDIT_S)

    def saved(self, uri: str) -> None:
        """Read the cursor's position in a saved document, if it was the last one worked in."""
        if uri == self._current:
            self._begin(uri, 0)

    def completion_requested(self, snapshot: DocumentSnapshot) -> None:
        """End the prefetch for a completion, which reads the text itself."""
        position = (snapshot.line, snapshot.offset)
        self._current, self._cursors[snapshot.uri] = snapshot.uri, position
        self._read = (snapshot.uri, position)
        self.close()

    def cursor_in(self, uri: str) -> TextPosition | None:
        """Return where the cursor is in a document; None if it is not known."""
        return self._cursors.get(uri)

    def closed(self, uri: str) -> None:
        """Forget a document."""
        self._cursors.pop(uri, None)
        if uri == self._current:
            self._current, self._read = "", None
            self.close()

    def close(self) -> None:
        """Cancel the prefetch that is under way."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _begin(self, uri: str, delay_s: float) -> None:
        self.close()
        self._current = uri
        at = (uri, self._cursors.get(uri))
        if at != self._read:
            self._task = asyncio.create_task(self._read_after(at, delay_s))

    async def _read_after(self, at: tuple[str, TextPosition | None], delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        if await self._warm_up(*at):
            self._read = at


class Continuations:
    """Fetches the rest of suggestions that were shown before they were complete, at most one per open document.

    A continuation ends when the document is edited or closed or a newer request comes. The complete answer is kept for
    one request, which the editor makes when it is notified: at the same position of the same text.

    ``ask`` returns the daemon's answer or None; ``announce`` tells the editor that the suggestion has grown.
    """

    def __init__(
        self,
        documents: OpenDocuments,
        ask: Callable[[CompleteRequest], Awaitable[CompleteResponse | None]],
        announce: Callable[[DocumentSnapshot], None],
    ) -> None:
        self._documents, self._ask, self._announce = documents, ask, announce
        self._running: dict[str, asyncio.Task[None]] = {}
        self._whole: dict[str, tuple[CompleteRequest, CompleteResponse]] = {}

    def follow(self, snapshot: DocumentSnapshot, request: CompleteRequest, shown: CompleteResponse) -> None:
        """Ask for the complete answer of which ``shown``, the beginning, is about to be shown."""
        self.stop(snapshot.uri)
        task = asyncio.create_task(self._fetch_whole(snapshot, _whole_of(request), shown))
        self._running[snapshot.uri] = task
        task.add_done_callback(lambda _: self._ended(snapshot.uri, task))

    def take(self, snapshot: DocumentSnapshot, request: CompleteRequest) -> CompleteResponse | None:
        """Return the complete answer if one is kept for this request; any continuation of the document ends.

        Editors may ask by hand for what grew by itself: it is as sure as its beginning.
        """
        asked, whole = self._whole.get(snapshot.uri, (None, None))
        self.stop(snapshot.uri)
        if asked is None:
            return None
        # What is asked by hand differs in what is shown of it.
        now = msgspec.structs.replace(_whole_of(request), eagerness=asked.eagerness, silent_in=asked.silent_in)
        return whole if asked == now else None

    def stop(self, uri: str) -> None:
        """End the continuation of a document that was edited or closed."""
        self._whole.pop(uri, None)
        if (task := self._running.pop(uri, None)) is not None:
            task.cancel()

    def close(self) -> None:
        """End all continuations."""
        for uri in [*self._running, *self._whole]:
            self.stop(uri)

    async def _fetch_whole(self, snapshot: DocumentSnapshot, request: CompleteRequest, shown: CompleteResponse) -> None:
        whole = await self._ask(request)
        if whole is not None and len(whole.text) > len(shown.text) and self._documents.is_current(snapshot):
            self._whole[snapshot.uri] = (request, whole)
            self._announce(snapshot)

    def _ended(self, uri: str, task: asyncio.Task[None]) -> None:
        if self._running.get(uri) is task:
            del self._running[uri]


def _whole_of(request: CompleteRequest) -> CompleteRequest:
    """Return the same request for the complete answer: not for a keystroke, and without a display deadline."""
    return msgspec.structs.replace(request, automatic=False, show_after_ms=None)


def likely_position(document: OpenDocument, position: TextPosition | None) -> TextPosition:
    """Return where a completion is likely: at the cursor, not inside a word; after the head if it is unknown."""
    last = len(document.lines) - 1
    line, offset = position or (HEAD_LINES - 1, 0)
    text = content(document.lines[min(line, last)])
    if position is None or line > last or begins_with_word(text[offset:]):
        return min(line, last), len(text)
    return line, offset
