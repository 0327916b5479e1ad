"""Background tasks, callbacks for progress, and waiting for work that a cancellation must not leave half done.

``await task`` passes each cancellation on to the task and returns before the task has cleaned up. An interrupted
clean-up leaves things behind, and a generator that still runs cannot be closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")
EventT = TypeVar("EventT")

OnProgress = Callable[[EventT], None]
"""Called with each event of a long work, in the thread that does the work; drawing it is the caller's business."""


class BackgroundTasks:
    """Tasks that nobody awaits: they are referenced until they end, and each exception is logged once.

    ``failure`` is the line to log. Exceptions of the types ``expected`` are not logged. ``context`` is for tasks that
    outlive the request that spawns them, and must not log under its id; None: each has the context of its spawner.
    """

    def __init__(
        self, log: logging.Logger, failure: str, *expected: type[BaseException], context: Context | None = None
    ) -> None:
        self._log, self._failure, self._expected, self._context = log, failure, expected, context
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start ``work`` and return its task."""
        task = asyncio.create_task(work, context=self._context)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def wait(self, timeout_s: float | None = None) -> None:
        """Wait until all tasks have ended, also those spawned meanwhile, or ``timeout_s`` have passed."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while self._tasks and (deadline is None or loop.time() < deadline):
            await asyncio.wait(tuple(self._tasks), timeout=None if deadline is None else deadline - loop.time())

    def cancel(self) -> None:
        """Cancel all tasks without waiting for their ends."""
        for task in tuple(self._tasks):
            task.cancel()

    async def end(self) -> None:
        """Cancel all tasks and return when they have ended; when cancelled meanwhile, raise CancelledError then."""
        await cancel_and_wait(*self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, self._expected):
            self._log.error(self._failure, exc_info=error)


async def run_shielded(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end and return its result, also when cancelled meanwhile; then raise CancelledError."""
    task = asyncio.create_task(work)
    if await _wait_for_end(task):
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not report it
        raise asyncio.CancelledError
    return task.result()


async def wait_for_event(event: asyncio.Event, seconds: float | None) -> None:
    """Return when the event is set, or after so many seconds (None: only then).

    ``asyncio.wait_for`` loses a cancellation that comes together with the event, up to Python 3.11.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def cancel_and_wait(*tasks: asyncio.Future[Any]) -> None:
    """Cancel each task once and return when all have ended, whatever they raise.

    When cancelled meanwhile, keep waiting and raise CancelledError at the end.
    """
    for task in tasks:
        task.cancel()
    cancelled = False
    for task in tasks:
        cancelled = await _wait_for_end(task) or cancelled
        if not task.cancelled():
            task.exception()
    if cancelled:
        raise asyncio.CancelledError


async def _wait_for_end(task: asyncio.Future[Any]) -> bool:
    """Wait until ``task`` has ended; return whether this coroutine was cancelled meanwhile."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            cancelled = True
    return cancelled
