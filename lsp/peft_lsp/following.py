"""What follows an answer that was shown before it was whole: the rest is asked for, and the editor is told of it.

At most one follow-up runs for each document, until the document is edited or closed or a newer request comes. The whole
answer is kept for the one request that the editor makes when it is told: in the same place of the same text, whatever
made it ask. Knows neither clock nor editor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from peft_core.api_types import CompleteRequest, CompleteResponse
from peft_lsp.documents import Documents, Snapshot


class Following:
    """The follow-ups of all open documents.

    ``ask`` gives the daemon's answer, None when there is none to be had; ``tell`` lets the editor know that there is
    more at a place.
    """

    def __init__(
        self,
        documents: Documents,
        ask: Callable[[CompleteRequest], Awaitable[CompleteResponse | None]],
        tell: Callable[[Snapshot], None],
    ) -> None:
        self._documents, self._ask, self._tell = documents, ask, tell
        self._running: dict[str, asyncio.Task[None]] = {}
        self._whole: dict[str, tuple[CompleteRequest, CompleteResponse]] = {}

    def follow(self, snapshot: Snapshot, request: CompleteRequest, shown: CompleteResponse) -> None:
        """Ask for the whole of an answer whose beginning is about to be shown."""
        self.stop(snapshot.uri)
        task = asyncio.create_task(self._go_on(snapshot, _whole_of(request), shown))
        self._running[snapshot.uri] = task
        task.add_done_callback(lambda _: self._ended(snapshot.uri, task))

    def take(self, snapshot: Snapshot, request: CompleteRequest) -> CompleteResponse | None:
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

    async def _go_on(self, snapshot: Snapshot, request: CompleteRequest, shown: CompleteResponse) -> None:
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
