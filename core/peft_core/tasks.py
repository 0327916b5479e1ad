"""Waiting for work that must not be left half done when whoever waits for it is cancelled.

``await task`` passes a cancellation on to the task each time, and returns before the task has cleaned up. Cleaning up
that is cancelled in turn leaves things behind, and a generator that still runs cannot be closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Do ``work`` and return when it is done, also when cancelled meanwhile; then raise CancelledError."""
    task = asyncio.create_task(work)
    if await _over(task):
        if not task.cancelled():
            task.exception()  # looked at: nobody else will
        raise asyncio.CancelledError
    return task.result()


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, each once, and return when they have ended, whatever they raise.

    When cancelled meanwhile, go on waiting and raise CancelledError then.
    """
    for task in tasks:
        task.cancel()
    cancelled = False
    for task in tasks:
        cancelled = await _over(task) or cancelled
        if not task.cancelled():
            task.exception()
    if cancelled:
        raise asyncio.CancelledError


async def _over(task: asyncio.Future[Any]) -> bool:
    """Wait for the end of ``task``; whether this was cancelled meanwhile."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            cancelled = True
    return cancelled
