"""When a request must be shown something, when it must be answered, and how long a keystroke waits for the next one.

Four limits bound a keystroke's completion:

1. The pause before the model is asked (``TypingRhythm.pause_s``), in which the next key may come: at most 0.15 s, and
   none where the engine is fast enough for the user's rhythm.
2. The display deadline (``Deadlines.display_at``): what is complete by then is shown, while the model goes on. The
   client names it (``show_after_ms``); a request that joins a generation counts from the start of that generation.
3. The engine's budget (``CompletionJob.time_budget_ms``): the request's ``time_budget_ms``, else for a hole the setting
   ``time_budget_fill_ms``. The engine counts it from when it begins with the request, and ends with what it has.
4. The answer deadline (``Deadlines.answer_at``): the same budget, else the setting ``request_limit_s``, counted from
   the request's arrival. What is complete by then is the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass
from typing import TypeVar

from peft_core.api_types import EngineState, EngineStatus
from peft_core.errors import Unavailable
from peft_core.tasks import BackgroundTasks, cancel_and_wait, run_shielded

T = TypeVar("T")

MAX_BURST_GAP_S = 0.6
"""A longer gap between two keys is a pause, not a part of the rhythm."""
NEWEST_WEIGHT = 0.3
"""Weight of the newest gap, or answer, in the running mean."""
MAX_TYPING_PAUSE_S = 0.15
MAX_TYPED_DOCUMENTS = 64


class DeadlinePassed(Exception):
    """The time for a request is over."""


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
