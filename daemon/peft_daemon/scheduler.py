"""Who may use the engine, and when: as many requests at a time as it has slots, and the newest per document wins.

A superseded request ends at its next await with Superseded; whoever answers it says so. Nothing here knows what a
request asks for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


class Superseded(Exception):
    """A newer request for the same document arrived."""


class Ticket:
    """A request's place in the queue."""

    def __init__(self, document: str | None) -> None:
        self.document = document
        self.queue_ms = 0.0
        self._superseded = asyncio.Event()

    def supersede(self) -> None:
        """End this request at its next await."""
        self._superseded.set()

    async def until_superseded(self, work: asyncio.Future[T]) -> T:
        """The result of ``work``, or Superseded as soon as a newer request arrives; ``work`` is cancelled then."""
        newer = asyncio.ensure_future(self._superseded.wait())
        try:
            await asyncio.wait((work, newer), return_when=asyncio.FIRST_COMPLETED)
            if self._superseded.is_set():
                raise Superseded
            return work.result()
        finally:
            newer.cancel()
            if not work.done():
                work.cancel()
                # Its clean-up (closing the stream to the engine) must be over before the slot is given on.
                await asyncio.gather(work, return_exceptions=True)

    async def guard(self, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """The items, until a newer request arrives (Superseded); closes ``items`` at the end."""
        async with aclosing(items):
            while True:
                try:
                    item = await self.until_superseded(asyncio.ensure_future(anext(items)))
                except StopAsyncIteration:
                    return
                yield item


class Scheduler:
    """Admits requests to ``slots`` places in order of arrival."""

    def __init__(self, slots: int) -> None:
        self._places = asyncio.Semaphore(slots)
        self._newest: dict[str, Ticket] = {}
        self.queued = 0
        self.active = 0

    @asynccontextmanager
    async def admit(self, document: str | None) -> AsyncIterator[Ticket]:
        """Wait for a place and hold it for the block; raises Superseded if a newer request comes first.

        ``document`` is the key under which newer requests supersede older ones; None for never.
        """
        ticket = Ticket(document)
        if document is not None:
            if older := self._newest.get(document):
                older.supersede()
            self._newest[document] = ticket
        arrived = time.perf_counter()
        try:
            self.queued += 1
            try:
                await self._acquire(ticket)
            finally:
                self.queued -= 1
            ticket.queue_ms = (time.perf_counter() - arrived) * 1000
            self.active += 1
            try:
                yield ticket
            finally:
                self.active -= 1
                self._places.release()
        finally:
            if document is not None and self._newest.get(document) is ticket:
                del self._newest[document]

    async def _acquire(self, ticket: Ticket) -> None:
        acquiring = asyncio.ensure_future(self._places.acquire())
        try:
            await ticket.until_superseded(acquiring)
        except BaseException:
            if acquiring.done() and not acquiring.cancelled() and acquiring.exception() is None:
                self._places.release()
            raise
