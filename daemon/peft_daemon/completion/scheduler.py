"""Who may use the engine, and when: as many generations at a time as it has places, the newest per document first.

Two independent things: ``newest`` ends a request when a newer one for its document arrives (Superseded, at its next
await; whoever answers it says so), and ``place`` admits generations in order of arrival. A generation nobody waits
for yet takes a ``spare_place`` and gives way to all others that come. Nothing here knows what is generated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, TypeVar

from peft_core.tasks import cancel_and_wait, run_shielded

T = TypeVar("T")


class Superseded(Exception):
    """A newer request for the same document arrived."""


class NoPlace(Exception):
    """Somebody waits for an answer."""


class Ticket:
    """A request that may be superseded."""

    def __init__(self) -> None:
        self._superseded = False
        self._work: asyncio.Future[Any] | None = None

    def supersede(self) -> None:
        """End this request now: nothing of it runs any more but its clean-up."""
        self._superseded = True
        if self._work is not None:
            self._work.cancel()

    async def until_superseded(self, work: asyncio.Future[T]) -> T:
        """The result of ``work``, or Superseded as soon as a newer request arrives; ``work`` is cancelled then."""
        self._work = work
        if self._superseded:
            work.cancel()
        try:
            await asyncio.wait((work,))
            if self._superseded:
                raise Superseded
            return work.result()
        finally:
            # Its clean-up must be over before the request is answered; a second cancellation would interrupt it.
            self._work = None
            await (run_shielded(_over(work)) if self._superseded else cancel_and_wait(work))

    async def guard(self, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """The items, until a newer request arrives (Superseded); closes ``items`` at the end."""

        async def step() -> T:
            return await anext(items)

        async with aclosing(items):
            while True:
                try:
                    item = await self.until_superseded(asyncio.ensure_future(step()))
                except StopAsyncIteration:
                    return
                yield item


async def _over(work: asyncio.Future[T]) -> None:
    """Wait for the end of ``work``, whatever it raises."""
    await asyncio.wait((work,))
    if not work.cancelled():
        work.exception()


class Place:
    """One generation's right to the engine."""

    def __init__(self, queue_ms: float, give_way: Callable[[], None] | None) -> None:
        self.queue_ms = queue_ms
        """How long it was waited for."""
        self.give_way = give_way
        """What ends a spare generation; None for one that somebody waits for."""

    def keep(self) -> None:
        """Somebody waits for this generation now: it gives way to nobody any more."""
        self.give_way = None


class Scheduler:
    """The places of one engine and the newest request of each document."""

    def __init__(self, slots: int) -> None:
        self._free = asyncio.Semaphore(slots)
        self._held: set[Place] = set()
        self._newest: dict[str, Ticket] = {}
        self.queued = 0

    @property
    def active(self) -> int:
        """Places that are taken."""
        return len(self._held)

    @contextmanager
    def newest(self, document: str | None) -> Iterator[Ticket]:
        """Be the newest request for the block, and supersede the one that was.

        ``document`` is the key under which newer requests supersede older ones; None for never.
        """
        ticket = Ticket()
        if document is None:
            yield ticket
            return
        if older := self._newest.get(document):
            older.supersede()
        self._newest[document] = ticket
        try:
            yield ticket
        finally:
            if self._newest.get(document) is ticket:
                del self._newest[document]

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """Wait for a place and hold it for the block; spare generations give way at once.

        Also where another place is free: two at work take several times as long for each token.
        """
        arrived = time.perf_counter()
        self.queued += 1
        try:
            self._make_way()
            await self._free.acquire()
        finally:
            self.queued -= 1
        with self._holding(Place((time.perf_counter() - arrived) * 1000, None)) as place:
            yield place

    @asynccontextmanager
    async def spare_place(self, give_way: Callable[[], None]) -> AsyncIterator[Place]:
        """Hold a place for the block, until ``give_way`` is called; an older spare generation gives way to a newer one.

        Raises NoPlace while anybody waits for an answer.
        """
        if self.queued or any(each.give_way is None for each in self._held):
            raise NoPlace
        self._make_way()
        await self._free.acquire()
        if self.queued:
            self._free.release()
            raise NoPlace
        with self._holding(Place(0.0, give_way)) as place:
            yield place

    def _make_way(self) -> None:
        for give_way in [each.give_way for each in self._held]:
            if give_way is not None:
                give_way()

    @contextmanager
    def _holding(self, place: Place) -> Iterator[Place]:
        self._held.add(place)
        try:
            yield place
        finally:
            self._held.discard(place)
            self._free.release()
