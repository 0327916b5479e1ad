"""The time of a request: its turn at the engine, the pause before the model is asked, and its deadlines.

Turns: as many generations at a time as the engine has slots, and the newest request per document. ``Scheduler.newest``
ends a request when a newer one for its document arrives, ``Scheduler.slot`` admits generations in order of arrival. A
generation that no request waits for yet takes a ``background_slot`` and gives way to all others that come.

Four limits bound a keystroke's completion:

1. The pause before the model is asked (``TypingRhythm.pause_s``), in which the next key may come: at most 0.15 s, and
   none where the engine is fast enough for the user's rhythm.
2. The display deadline (``Deadlines.display_at``): what is complete by then is shown, while the model goes on. The
   client names it (``show_after_ms``); a request that joins a generation counts from the start of that generation.
3. The engine's budget (``CompletionJob.time_budget_ms``): the request's ``time_budget_ms``, else for a hole the setting
   ``time_budget_fill_ms``. The engine counts it from when it begins with the request, and ends with what it has.
4. The answer deadline (``Deadlines.answer_at``): the same budget, else the setting ``request_limit_s``, counted from
   the request's arrival. What is complete by then is the answer.

Nothing here knows what is generated.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from peft_core.errors import Unavailable
from peft_core.status_types import EngineState, EngineStatus, ServingLimit
from peft_core.tasks import BackgroundTasks, cancel_and_wait, run_shielded

T = TypeVar("T")

MAX_BURST_GAP_S = 0.6
"""A longer gap between two keys is a pause, not a part of the rhythm."""
NEWEST_WEIGHT = 0.3
"""Weight of the newest gap, or answer, in the running mean."""
MAX_TYPING_PAUSE_S = 0.15
MAX_TYPED_DOCUMENTS = 64


class Superseded(Exception):
    """A newer request for the same document arrived."""


class NoFreeSlot(Exception):
    """A request waits for an answer: background work has to wait."""


class DeadlinePassed(Exception):
    """The time for a request is over."""


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
    """The slots of one engine and the newest request of each document.

    ``beside`` is the scheduler of another engine on the same machine: a document's newest request is the newest of
    both, and the background work of either gives way to the requests of both.
    """

    def __init__(self, slots: int, *, beside: Scheduler | None = None) -> None:
        self._free = asyncio.Semaphore(slots)
        self._held: set[SchedulerSlot] = set()
        self._newest: dict[str, Ticket] = beside._newest if beside else {}
        self._all: list[Scheduler] = beside._all if beside else []
        """Those of all engines on this machine."""
        self._all.append(self)
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
        if any(each.queued or any(slot.give_way is None for slot in each._held) for each in self._all):
            raise NoFreeSlot
        self._make_way()
        await self._free.acquire()
        if any(each.queued for each in self._all):
            self._free.release()
            raise NoFreeSlot
        with self._holding(SchedulerSlot(0.0, give_way)) as slot:
            yield slot

    def _make_way(self) -> None:
        for give_way in [slot.give_way for each in self._all for slot in each._held]:
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


@dataclass
class _Typing:
    last: float
    gap_s: float | None = None


class TypingRhythm:
    """How fast the user types in each document, and how fast the engine answers.

    Starting the model at once costs nothing when the next key agrees with the answer, which is then joined. But an
    answer that cannot have a word by the next key is only in its way: stopping it takes the engine some time.
    """

    def __init__(self) -> None:
        self._typing: OrderedDict[str, _Typing] = OrderedDict()
        self._first_word_s = 0.0

    def key(self, document: str, now: float | None = None) -> None:
        """Note that a keystroke's request came."""
        now = time.monotonic() if now is None else now
        typing = self._typing.pop(document, None) or _Typing(now)
        self._typing[document] = typing
        if len(self._typing) > MAX_TYPED_DOCUMENTS:
            self._typing.popitem(last=False)
        gap = now - typing.last
        typing.last = now
        if 0 < gap <= MAX_BURST_GAP_S:
            typing.gap_s = gap if typing.gap_s is None else (1 - NEWEST_WEIGHT) * typing.gap_s + NEWEST_WEIGHT * gap
        elif gap > MAX_BURST_GAP_S:
            typing.gap_s = None

    def answered(self, first_token_ms: float, token_ms: float) -> None:
        """Note when the first token of an answer to a keystroke came, and how long each takes."""
        first_word_s = (first_token_ms + token_ms) / 1000
        self._first_word_s += (NEWEST_WEIGHT if self._first_word_s else 1.0) * (first_word_s - self._first_word_s)

    def pause_s(self, document: str) -> float:
        """Seconds to wait for another key before the model is asked; none where it would be fast enough."""
        typing = self._typing.get(document)
        if typing is None or typing.gap_s is None or typing.gap_s >= self._first_word_s:
            return 0.0
        return min(typing.gap_s, MAX_TYPING_PAUSE_S)

    def limit(self) -> ServingLimit:
        """Return the longest pause that there may be, with its reason."""
        longest = min(self._first_word_s, MAX_TYPING_PAUSE_S)
        why = f"the first word of an answer takes {1000 * self._first_word_s:.0f} ms" if longest else "no key came yet"
        return ServingLimit("typing_pause_ms", round(1000 * longest), why)


@dataclass(frozen=True)
class Deadlines:
    """The deadlines of one request. Moments are of the event loop's clock."""

    arrived: float
    answer_s: float | None = None
    """Time from arrival in which it must be answered; None: no limit."""
    display_s: float | None = None
    """Time after which what is complete is shown; None: only the whole answer is."""

    @property
    def answer_at(self) -> float | None:
        """The moment at which it must be answered."""
        return None if self.answer_s is None else self.arrived + self.answer_s

    def display_at(self, began: float) -> float | None:
        """The moment at which to show something of a generation that began at ``began``."""
        return None if self.display_s is None else min(self.arrived, began) + self.display_s

    async def within(self, work: Awaitable[T]) -> T:
        """The result of ``work``; raises DeadlinePassed when it must be answered before."""
        try:
            async with asyncio.timeout_at(self.answer_at):
                return await work
        except TimeoutError:
            raise DeadlinePassed from None

    def require_engine(self, engine: EngineStatus) -> None:
        """Raise Unavailable if nothing was written in the time because the engine was not there."""
        if _missing(engine):
            raise self.unanswered(engine)

    def unanswered(self, engine: EngineStatus) -> Unavailable:
        """The error of a request for which nothing was written in the time."""
        missing = _missing(engine)
        return Unavailable(
            f"the request was not answered within its {self.answer_s:g} s",
            why=missing or "the model did not write anything in that time",
            fix="Send it again in a moment; `peft-daemon status` shows what the engine does"
            if missing
            else "Send a shorter prompt, or set `request_limit_s` higher",
        )


def _missing(engine: EngineStatus) -> str:
    """Why an engine cannot have answered; empty where it could."""
    if engine.state is EngineState.READY:
        return "" if engine.responding else "the engine is not responding"
    return engine.last_error or f"the engine is {engine.state}"


async def until_deadline(
    items: AsyncGenerator[T, None], deadline: float, left_behind: BackgroundTasks
) -> AsyncGenerator[T, None]:
    """Yield the items until ``deadline``, by the event loop's clock; then raise DeadlinePassed.

    ``items`` is closed at the end. That may take long where the deadline has passed: then it is not waited for, but
    done by a task in ``left_behind``.
    """
    loop = asyncio.get_running_loop()
    step: asyncio.Task[T] | None = None

    async def close() -> None:
        if step is not None:
            await cancel_and_wait(step)
        await items.aclose()

    async def next_item() -> T:
        return await anext(items)

    late = False
    try:
        while True:
            step = asyncio.create_task(next_item())
            await asyncio.wait((step,), timeout=deadline - loop.time())
            if not step.done():
                late = True
                raise DeadlinePassed
            try:
                item = step.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        if late:
            left_behind.spawn(close())
        else:
            await run_shielded(close())
