"""Turns at the engine: as many generations at a time as it has slots, and the newest request per document.

Two independent things: ``newest`` ends a request when a newer one for its document arrives, and ``slot`` admits
generations in order of arrival. A generation that no request waits for yet takes a ``background_slot`` and gives way to
all others that come. Nothing here knows what is generated.
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


class NoFreeSlot(Exception):
    """A request waits for an answer: background work has to wait."""


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


class SchedulerSlot:
    """One generation's turn at the engine."""

    def __init__(self, queue_ms: float, give_way: Callable[[], None] | None) -> None:
        self.queue_ms = queue_ms
        """How long the generation waited for it."""
        self.give_way = give_way
        """Ends a background generation; None for one that a request waits for."""

    def claim(self) -> None:
        """Make it a foreground slot, as a request waits for the generation now."""
        self.give_way = None


class Scheduler:
    """The slots of one engine and the newest request of each document."""

    def __init__(self, slots: int) -> None:
        self._free = asyncio.Semaphore(slots)
        self._held: set[SchedulerSlot] = set()
        self._newest: dict[str, Ticket] = {}
        self.queued = 0

    @property
    def active(self) -> int:
        """Slots that are taken."""
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
    async def slot(self) -> AsyncIterator[SchedulerSlot]:
        """Wait for a slot and hold it for the block; background generations give way at once.

        They do so even when a slot is free: two at work take several times as long for each token.
        """
        arrived = time.perf_counter()
        self.queued += 1
        try:
            self._make_way()
            await self._free.acquire()
        finally:
            self.queued -= 1
        with self._holding(SchedulerSlot((time.perf_counter() - arrived) * 1000, None)) as slot:
            yield slot

    @asynccontextmanager
    async def background_slot(self, give_way: Callable[[], None]) -> AsyncIterator[SchedulerSlot]:
        """Hold a slot for the block, until ``give_way`` is called; older background work gives way to newer.

        Raises NoFreeSlot while a request waits for an answer.
        """
        if self.queued or any(each.give_way is None for each in self._held):
            raise NoFreeSlot
        self._make_way()
        await self._free.acquire()
        if self.queued:
            self._free.release()
            raise NoFreeSlot
        with self._holding(SchedulerSlot(0.0, give_way)) as slot:
            yield slot

    def _make_way(self) -> None:
        for give_way in [each.give_way for each in self._held]:
            if give_way is not None:
                give_way()

    @contextmanager
    def _holding(self, slot: SchedulerSlot) -> Iterator[SchedulerSlot]:
        self._held.add(slot)
        try:
            yield slot
        finally:
            self._held.discard(slot)
            self._free.release()
