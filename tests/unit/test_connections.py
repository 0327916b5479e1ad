"""A connection is closed with its request, however that ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from peft_daemon.connections import ConnectionPool
from support.served import ServedHere, open_descriptors, served, until

TIMEOUTS = httpx.Timeout(10.0, read=None)


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Two pieces, the second one a moment later."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"transfer-encoding", b"chunked")]})
    for piece in (b"data: 1\n\n", b"data: 2\n\n"):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServedHere]:
    config = uvicorn.Config(answer, uds=str(tmp_path / "s"), lifespan="off", log_config=None, ws="none")
    async with served(config) as serving:
        yield serving


def pool_of(server: ServedHere, *, keep_alive_s: float = 30.0) -> ConnectionPool:
    return ConnectionPool("http://localhost", socket=server.config.uds, headers={}, keep_alive_s=keep_alive_s)


async def ask(pool: ConnectionPool, *, pieces: int | None = None, keep: bool = True) -> None:
    """Read the answer, or so many pieces of it."""
    async with pool.send("GET", "/", content=None, timeouts=TIMEOUTS, keep=keep) as response:
        read = 0
        async for _ in response.aiter_raw():
            read += 1
            if read == pieces:
                return


async def test_no_connection_outlives_a_request_cancelled_at_any_moment_once_or_twice(server: ServedHere) -> None:
    pool = pool_of(server)
    await ask(pool)
    await pool.close_unused()
    await until(lambda: not server.connections)
    descriptors = open_descriptors()
    for steps in range(40):
        for between in (None, 0, 1, 2):
            asking = asyncio.create_task(ask(pool, pieces=1 if steps % 2 else None))
            for _ in range(steps):
                await asyncio.sleep(0)
            asking.cancel()
            if between is not None:
                for _ in range(between):
                    await asyncio.sleep(0)
                asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
        await pool.close_unused()
        left = f"a connection is left that was cancelled after {steps} steps"
        await until(lambda: not server.connections and open_descriptors() == descriptors, left)


async def test_a_connection_is_used_again_once_its_answer_was_read_to_the_end(server: ServedHere) -> None:
    pool = pool_of(server)
    for _ in range(3):
        await ask(pool)
    assert server.connections == 1
    await ask(pool, pieces=1)
    await until(lambda: not server.connections)
    await ask(pool, keep=False)
    await until(lambda: not server.connections)
    await pool.aclose()


async def test_what_nobody_uses_for_long_is_closed_with_the_next_request(server: ServedHere) -> None:
    pool = pool_of(server, keep_alive_s=0.0)
    await asyncio.gather(*(ask(pool) for _ in range(3)))
    await ask(pool)
    await until(lambda: server.connections == 1)
    await pool.aclose()
    await until(lambda: not server.connections)


async def test_a_closed_pool_keeps_nothing_of_the_requests_that_still_run(server: ServedHere) -> None:
    pool = pool_of(server)
    async with pool.send("GET", "/", content=None, timeouts=TIMEOUTS) as response:
        await pool.aclose()
        assert await response.aread()
    await until(lambda: not server.connections)
