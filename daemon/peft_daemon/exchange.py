"""One request to a daemon that may be busy for minutes, may hang, or may be gone, and its answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from peft_core.errors import Unauthorized, Unavailable
from peft_core.http_client import ConnectionLost, ConnectionPool, ConnectionTimeout, HttpResponse
from peft_core.tasks import cancel_and_wait

T = TypeVar("T")

SILENCE_S = 5.0
"""A daemon that says nothing for so long is asked whether it is there at all: a model may take minutes."""
PROBE_S = 10.0
"""So long it may take to answer that."""


class Vanished(Exception):
    """The daemon went away before it answered anything; sending again cannot do the work twice."""


class AnswerLimit:
    """How long one answer is waited for: until a moment of the event loop's clock, and while the daemon is there."""

    def __init__(self, pool: ConnectionPool, until: float) -> None:
        self._pool, self._until = pool, until

    async def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``; raises Unavailable when it takes too long."""
        task, loop = asyncio.create_task(work), asyncio.get_running_loop()
        try:
            while True:
                left = self._until - loop.time()
                await asyncio.wait((task,), timeout=max(0.0, min(SILENCE_S, left)))
                if task.done():
                    return task.result()
                if left <= SILENCE_S:
                    raise _hung("it did not answer in the time that it has for that")
                try:
                    await self._probe(min(PROBE_S, left - SILENCE_S))
                except Unavailable:
                    if not task.done():
                        raise
        finally:
            await cancel_and_wait(task)

    async def _probe(self, limit_s: float) -> None:
        """Raise Unavailable if the daemon does not answer a request that needs no model."""
        try:
            async with self._pool.send("GET", "/health", read_s=limit_s) as response:
                await response.aread()
        except ConnectionTimeout:
            raise _hung(f"not even a request for its health, for {limit_s:.0f} s") from None
        except ConnectionLost:
            return  # the connection of the request itself says what became of it


def _hung(why: str) -> Unavailable:
    return Unavailable("the daemon does not answer", why=why, fix="`peft-daemon stop` ends it; then try again")


@dataclass(frozen=True)
class DaemonAnswer:
    """An answer whose head is here."""

    response: HttpResponse
    limit: AnswerLimit

    async def read(self) -> bytes:
        """The whole body; raises as ``chunks`` does."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes; raises Unavailable when it breaks off."""
        async with contextlib.aclosing(self.response.aiter_bytes()) as pieces:
            while True:
                try:
                    piece = await self.limit.wait(_next(pieces))
                except ConnectionLost as error:
                    raise Unavailable(
                        "the daemon went away in the middle of an answer", why=str(error), fix="Send the request again"
                    ) from None
                if not piece:
                    return
                yield piece


async def _next(pieces: AsyncGenerator[bytes, None]) -> bytes:
    """The next piece that is not empty; nothing behind the last."""
    async for piece in pieces:
        if piece:
            return piece
    return b""


@contextlib.asynccontextmanager
async def exchange(
    pool: ConnectionPool, method: str, path: str, body: bytes, *, until: float, with_token: bool
) -> AsyncIterator[DaemonAnswer]:
    """Send once; raises Vanished when the daemon that was connected to is no longer there.

    ``with_token`` says whether the pool sends one. The block reads the answer as ``DaemonAnswer`` does, so that what is
    caught here comes of the request alone.
    """
    headers = {"Content-Type": "application/json"} if body else {}
    limit = AnswerLimit(pool, until)
    sending = pool.send(method, path, content=body, headers=headers)
    async with contextlib.AsyncExitStack() as stack:
        try:
            response = await limit.wait(stack.enter_async_context(sending))
        except ConnectionTimeout:
            raise _hung("it accepts no connection") from None
        except ConnectionLost as error:
            raise Vanished(str(error)) from None
        if response.status_code == Unauthorized.status and with_token:
            # A fixed port, and another daemon behind it by now.
            raise Vanished("the daemon does not know this client's token")
        yield DaemonAnswer(response, limit)
