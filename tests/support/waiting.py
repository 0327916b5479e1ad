"""Waiting for a state that gives no event, most often because another process reaches it.

What the test's own process does has events: wait for those. Each function fails the test, and says what did not come,
after a time that is far too long for any machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
What = str | Callable[[], str]
"""What is awaited, for the message; a function where the message is to have what is known by then."""

LIMIT_S = 60.0
STEP_S = 0.01
"""Between two looks."""


async def until(condition: Callable[[], T], what: What, *, limit_s: float = LIMIT_S, step_s: float = STEP_S) -> T:
    """Wait until ``condition`` returns something true; returns that."""
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        _require_before(deadline, what)
        await asyncio.sleep(step_s)
    return found


async def until_answer(
    ask: Callable[[], Awaitable[T]],
    wanted: Callable[[T], object],
    what: str,
    *,
    limit_s: float = LIMIT_S,
    step_s: float = STEP_S,
) -> T:
    """Ask again until the answer is ``wanted``; returns it. The message has the last answer."""
    deadline = time.monotonic() + limit_s
    while not wanted(answer := await ask()):
        _require_before(deadline, f"{what}; the last answer was {answer!r:.1000}")
        await asyncio.sleep(step_s)
    return answer


def wait_until(condition: Callable[[], T], what: What, *, limit_s: float = LIMIT_S, step_s: float = STEP_S) -> T:
    """Like ``until``, where there is no event loop to be kept running."""
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        _require_before(deadline, what)
        time.sleep(step_s)
    return found


def _require_before(deadline: float, what: What) -> None:
    if time.monotonic() >= deadline:
        raise AssertionError(f"still awaited: {what if isinstance(what, str) else what()}")
