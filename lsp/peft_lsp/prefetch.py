"""Warming up: the model reads the text around the cursor before anybody asks for a completion there.

It does so when a document is opened, when the cursor rests at another place (``peft-daemon/cursor``), when it is saved,
and in the silence after edits that no completion was asked for. The cursor stands in one place, so there is at most one
warm-up at a time: a newer one takes the place of the older, and any completion or edit ends it. Nothing of it is shown,
and nothing that fails is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from lsprotocol import types

from peft_core.api_types import CompleteRequest, CompleteResponse
from peft_lsp import names
from peft_lsp.documents import (
    ContentChange,
    DocumentSnapshot,
    OpenDocument,
    OpenDocuments,
    TextPosition,
    position_after,
)
from peft_lsp.positions import content
from peft_lsp.requests import begins_with_word, is_hopeless, request_at, why_off
from peft_lsp.suggestion_tracker import shift_position

if TYPE_CHECKING:
    from peft_lsp.language_server import PeftLanguageServer

log = logging.getLogger(__name__)

AFTER_OPEN_S = 0.1
"""An editor that tells its cursor has told it by then."""
AFTER_CURSOR_MOVE_S = 0.1
"""How long a cursor stays before its place is worth reading."""
AFTER_EDIT_S = 1.0
"""How long after an edit its place is read, if no completion was asked for there."""
HEAD_LINES = 40
"""Read of a document whose cursor is not known: what is read of it serves any place below."""

WarmUp = Callable[[str, TextPosition | None], Awaitable[bool]]
"""Warms up for a place in a document, None where that is not known; whether it was read."""


class Prefetch:
    """When to warm up, and where; must be told of all that happens to documents."""

    def __init__(self, warm: WarmUp) -> None:
        self._warm = warm
        self._cursors: dict[str, TextPosition] = {}
        self._current = ""
        """The document where something happened last."""
        self._told = False
        """This editor tells where its cursor is."""
        self._read: tuple[str, TextPosition | None] | None = None
        """The document and place whose text the model has read last."""
        self._task: asyncio.Task[None] | None = None

    def opened(self, uri: str) -> None:
        """A document was opened, which may well be one that nobody looks at if the editor tells its cursor."""
        if not self._told:
            self._begin(uri, AFTER_OPEN_S)

    def moved(self, uri: str, place: TextPosition) -> None:
        """The cursor was moved."""
        self._told = True
        self._cursors[uri] = place
        self._begin(uri, AFTER_CURSOR_MOVE_S)

    def edited(self, uri: str, edits: Sequence[ContentChange]) -> None:
        """A document was edited."""
        for edit in edits:
            cursor = self._cursors.get(uri)
            elsewhere = cursor is not None and not edit.start <= cursor <= edit.end
            self._cursors[uri] = (
                shift_position(cursor, edit) if cursor and elsewhere else position_after(edit.start, edit.text)
            )
        if edits:
            self._read = None
            self._begin(uri, AFTER_EDIT_S)

    def saved(self, uri: str) -> None:
        """A document was saved; many may be at once, and the cursor is in one of them."""
        if uri == self._current:
            self._begin(uri, 0)

    def asked(self, snapshot: DocumentSnapshot) -> None:
        """A completion is asked for, which reads the text itself."""
        place = (snapshot.line, snapshot.offset)
        self._current, self._cursors[snapshot.uri], self._read = snapshot.uri, place, (snapshot.uri, place)
        self.close()

    def closed(self, uri: str) -> None:
        """A document was closed."""
        self._cursors.pop(uri, None)
        if uri == self._current:
            self._current, self._read = "", None
            self.close()

    def close(self) -> None:
        """End what is under way."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _begin(self, uri: str, delay_s: float) -> None:
        self.close()
        self._current = uri
        at = (uri, self._cursors.get(uri))
        if at != self._read:
            self._task = asyncio.create_task(self._go(at, delay_s))

    async def _go(self, at: tuple[str, TextPosition | None], delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        if await self._warm(*at):
            self._read = at


class CursorParams(msgspec.Struct, frozen=True):
    """Parameters of ``peft-daemon/cursor``."""

    uri: str
    line: int
    character: int


def register(server: PeftLanguageServer) -> None:
    """Listen to the editor's cursor."""
    server.feature(names.CURSOR)(cursor)


def cursor(ls: PeftLanguageServer, params: Any) -> None:
    """The editor's cursor stands elsewhere; a notification that cannot be read is logged."""
    try:
        told = {"uri": params.uri, "line": params.position.line, "character": params.position.character}
        found = msgspec.convert(told, CursorParams)
    except (AttributeError, msgspec.ValidationError) as error:
        log.warning("%s: %s", names.CURSOR, error)
        return
    if (document := ls.documents.get(found.uri)) is not None:
        place = document.locate(types.Position(max(found.line, 0), found.character), ls.documents.encoding)
        ls.warming.moved(found.uri, place)


async def warm(ls: PeftLanguageServer, uri: str, place: TextPosition | None) -> bool:
    """Have the daemon read the text around a place, if completions are served there; whether it did."""
    document = ls.documents.get(uri)
    if document is None:
        return False
    snapshot = document.around(*_likely(document, place), ls.documents.encoding)
    settings = await ls.settings.of(uri)
    if is_hopeless(snapshot) or why_off(uri, snapshot.language, settings) is not None:
        return False
    return await ls.daemon.warm(request_at(ls, snapshot, settings, purpose=ls.purpose))


def _likely(document: OpenDocument, place: TextPosition | None) -> TextPosition:
    """Where something may be asked for next: there, but not inside a word; without a place at the end of the head."""
    last = len(document.lines) - 1
    line, offset = place or (HEAD_LINES - 1, 0)
    text = content(document.lines[min(line, last)])
    if place is None or line > last or begins_with_word(text[offset:]):
        return min(line, last), len(text)
    return line, offset


class Continuations:
    """The follow-ups of all open documents.

    ``ask`` gives the daemon's answer, None when there is none to be had; ``tell`` lets the editor know that there is
    more at a place.
    """

    def __init__(
        self,
        documents: OpenDocuments,
        ask: Callable[[CompleteRequest], Awaitable[CompleteResponse | None]],
        tell: Callable[[DocumentSnapshot], None],
    ) -> None:
        self._documents, self._ask, self._tell = documents, ask, tell
        self._running: dict[str, asyncio.Task[None]] = {}
        self._whole: dict[str, tuple[CompleteRequest, CompleteResponse]] = {}

    def follow(self, snapshot: DocumentSnapshot, request: CompleteRequest, shown: CompleteResponse) -> None:
        """Ask for the whole of an answer whose beginning is about to be shown."""
        self.stop(snapshot.uri)
        task = asyncio.create_task(self._go_on(snapshot, _whole_of(request), shown))
        self._running[snapshot.uri] = task
        task.add_done_callback(lambda _: self._ended(snapshot.uri, task))

    def take(self, snapshot: DocumentSnapshot, request: CompleteRequest) -> CompleteResponse | None:
        """The whole answer, if this request is the one it was kept for; any request ends what runs or is kept."""
        asked, whole = self._whole.get(snapshot.uri, (None, None))
        self.stop(snapshot.uri)
        return whole if asked == _whole_of(request) else None

    def stop(self, uri: str) -> None:
        """The document was edited or closed: nothing that was shown there is worth going on with."""
        self._whole.pop(uri, None)
        if (task := self._running.pop(uri, None)) is not None:
            task.cancel()

    def close(self) -> None:
        """End all of them."""
        for uri in [*self._running, *self._whole]:
            self.stop(uri)

    async def _go_on(self, snapshot: DocumentSnapshot, request: CompleteRequest, shown: CompleteResponse) -> None:
        whole = await self._ask(request)
        if whole is not None and len(whole.text) > len(shown.text) and self._documents.is_current(snapshot):
            self._whole[snapshot.uri] = (request, whole)
            self._tell(snapshot)

    def _ended(self, uri: str, task: asyncio.Task[None]) -> None:
        if self._running.get(uri) is task:
            del self._running[uri]


def _whole_of(request: CompleteRequest) -> CompleteRequest:
    """The same request, made by nobody's key and with no hurry."""
    return msgspec.structs.replace(request, automatic=False, show_after_ms=None)
