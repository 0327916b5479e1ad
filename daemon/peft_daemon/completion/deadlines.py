"""How long a request may take, counted from its arrival, and what it is told when that was not enough."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TypeVar

from peft_core.api_types import EngineState, EngineStatus
from peft_core.errors import Unavailable
from peft_core.tasks import BackgroundTasks, cancel_and_wait, run_shielded

T = TypeVar("T")


class DeadlinePassed(Exception):
    """The time for a request is over."""


@dataclass(frozen=True)
class Deadline:
    """When a request must be answered."""

    arrived: float
    """By the event loop's clock, as ``at``."""
    limit_s: float

    @property
    def at(self) -> float:
        """The moment."""
        return self.arrived + self.limit_s

    def require_engine(self, engine: EngineStatus) -> None:
        """Raise Unavailable if it was for want of an engine that nothing was written in the time."""
        if _lacking(engine):
            raise self.unanswered(engine)

    def unanswered(self, engine: EngineStatus) -> Unavailable:
        """What a request is told for which nothing was written in the time."""
        lacking = _lacking(engine)
        return Unavailable(
            f"the request was not answered within its {self.limit_s:g} s",
            why=lacking or "the model did not write anything in that time",
            fix="Send it again in a moment; `peft-daemon status` shows what the engine does"
            if lacking
            else "Send a shorter prompt, or set `request_limit_s` higher",
        )


def _lacking(engine: EngineStatus) -> str:
    """Why an engine cannot have answered; empty where it could."""
    if engine.state is EngineState.READY:
        return "" if engine.responding else "the engine is not responding"
    return engine.last_error or f"the engine is {engine.state}"


async def until_deadline(
    items: AsyncGenerator[T, None], deadline: float, left_behind: BackgroundTasks
) -> AsyncGenerator[T, None]:
    """The items until ``deadline``, by the event loop's clock; then raise DeadlinePassed.

    ``items`` is closed at the end. That may take long where the deadline has passed: then it is not waited for, but
    done by a task in ``left_behind``.
    """
    loop = asyncio.get_running_loop()
    step: asyncio.Task[T] | None = None

    async def close() -> None:
        if step is not None:
            await cancel_and_wait(step)
        await items.aclose()

    async def following() -> T:
        return await anext(items)

    late = False
    try:
        while True:
            step = asyncio.create_task(following())
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
