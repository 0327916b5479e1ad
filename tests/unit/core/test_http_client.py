"""A connection is closed with its request, however that ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from peft_core.http_client import ConnectionLost, ConnectionPool, ConnectionTimeout
from support.served import ServedHere, open_descriptors, served
from support.waiting import until

NO_CONNECTION = "the end of all connections"


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
    return ConnectionPool(f"unix:{server.config.uds}", headers={}, connect_s=10.0, keep_alive_s=keep_alive_s)


async def ask(pool: ConnectionPool, *, pieces: int | None = None, keep: bool = True) -> None:
    """Read the answer, or so many pieces of it."""
    async with pool.send("GET", "/", keep=keep) as response:
        read = 0
        async for _ in response.aiter_bytes():
            read += 1
            if read == pieces:
                return


async def test_no_connection_outlives_a_request_cancelled_at_any_moment_once_or_twice(server: ServedHere) -> None:
    pool = pool_of(server)
    await ask(pool)
    pool.close_unused()
    await until(lambda: not server.connections, NO_CONNECTION)
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
        pool.close_unused()
        end = f"the end of a connection that was cancelled after {steps} steps"
        await until(lambda: not server.connections and open_descriptors() == descriptors, end)


async def test_a_connection_is_used_again_once_its_answer_was_read_to_the_end(server: ServedHere) -> None:
    pool = pool_of(server)
    for _ in range(3):
        await ask(pool)
    assert server.connections == 1
    await ask(pool, pieces=1)
    await until(lambda: not server.connections, NO_CONNECTION)
    await ask(pool, keep=False)
    await until(lambda: not server.connections, NO_CONNECTION)
    pool.close()


async def test_what_nobody_uses_for_long_is_closed_with_the_next_request(server: ServedHere) -> None:
    pool = pool_of(server, keep_alive_s=0.0)
    await asyncio.gather(*(ask(pool) for _ in range(3)))
    await ask(pool)
    await until(lambda: server.connections == 1, "a single connection")
    pool.close()
    await until(lambda: not server.connections, NO_CONNECTION)


async def test_a_closed_pool_keeps_nothing_of_the_requests_that_still_run(server: ServedHere) -> None:
    pool = pool_of(server)
    async with pool.send("GET", "/") as response:
        pool.close()
        assert await response.aread()
    await until(lambda: not server.connections, NO_CONNECTION)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(handler: Handler, tmp_path: Path) -> AsyncIterator[ConnectionPool]:
    """A pool of connections to a server that does this with each of them."""
    async with await asyncio.start_unix_server(handler, tmp_path / "raw"):
        yield ConnectionPool(f"unix:{tmp_path / 'raw'}", headers={}, connect_s=10.0, keep_alive_s=30.0)


@pytest.mark.parametrize(
    "said",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"],
)
async def test_a_server_that_breaks_off_is_a_lost_connection(said: bytes, tmp_path: Path) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    async with listening(break_off, tmp_path) as pool:
        with pytest.raises(ConnectionLost):
            async with pool.send("GET", "/") as response:
                await response.aread()


async def test_a_server_that_is_not_there_is_a_lost_connection(tmp_path: Path) -> None:
    pool = ConnectionPool(f"unix:{tmp_path / 'nobody'}", headers={}, connect_s=10.0, keep_alive_s=30.0)
    with pytest.raises(ConnectionLost, match="No such file"):
        await ask(pool)


async def test_a_server_that_says_nothing_is_waited_for_as_long_as_was_said(tmp_path: Path) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with listening(hang, tmp_path) as pool:
        with pytest.raises(ConnectionTimeout):
            async with pool.send("GET", "/", read_s=0.05):
                pass


async def test_an_answer_that_comes_before_the_request_was_read_is_an_answer(tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        await reader.read()
        writer.close()

    async with listening(refuse, tmp_path) as pool, pool.send("POST", "/", content=b"x" * 5_000_000) as response:
        assert (response.status_code, await response.aread()) == (413, b"no")


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used_again(tmp_path: Path) -> None:
    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()
        await writer.wait_closed()
        answered.set()

    async with listening(answer_once, tmp_path) as pool:
        for _ in range(3):
            answered = asyncio.Event()
            await ask(pool)
            await answered.wait()
            await asyncio.sleep(0)  # the loop has seen that it was closed
