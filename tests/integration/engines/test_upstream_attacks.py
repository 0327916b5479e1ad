"""A server that means harm: it keeps nobody waiting, fills no memory, and gets the key to no other server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import psutil
import pytest

from peft_daemon.engines.base import GenerationRequest, Segment
from peft_daemon.engines.upstream import server as upstream_server
from peft_daemon.engines.upstream.failures import UpstreamAddress, UpstreamFailed
from peft_daemon.engines.upstream.protocols import PROTOCOLS
from peft_daemon.engines.upstream.server import ServerFacts, UpstreamServer

KEY = "sk-very-secret-key"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
ENDLESS_LIMIT_S = 60.0
OPENAI = next(each for each in PROTOCOLS if each.kind == "openai")
Attack = Callable[[asyncio.StreamWriter], Awaitable[None]]


def repeating(begin: bytes, piece: bytes, pause_s: float = 0.0) -> Attack:
    """Write ``begin``, then ``piece`` without end."""

    async def attack(writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return attack


def once(answer: bytes) -> Attack:
    async def attack(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        await asyncio.sleep(ENDLESS_LIMIT_S)

    return attack


ATTACKS: dict[str, Attack] = {
    "headers without end": repeating(HEAD, b"X-A: " + b"a" * 8000 + b"\r\n"),
    "a header that never ends": repeating(HEAD + b"X-A: ", b"a" * 65536),
    "a head, byte by byte": repeating(HEAD + b"X-A: ", b"a", 0.02),
    "provisional answers without end": repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "a body without end": repeating(HEAD + b"\r\n", b"a" * 65536),
    "events that say nothing": repeating(HEAD + b"\r\n", b": nothing\n\n" * 1000),
    "a length beyond all bounds": once(HEAD + b"Content-Length: " + b"9" * 4000 + b"\r\n\r\n{"),
    "a length below zero": once(HEAD + b"Content-Length: -1\r\n\r\n{"),
    "two lengths": once(HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{"),
    "a chunk beyond all bounds": once(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 4000 + b"\r\n"),
    "another protocol": once(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
    "no protocol": repeating(b"", b"\x00\xff" * 32768),
}


@asynccontextmanager
async def serving(attack: Attack) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answer every connection so; yields the address and what was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            await attack(writer)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    tasks = asyncio.all_tasks()
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", asked
    finally:
        listening.close()
        for task in asyncio.all_tasks() - tasks - {asyncio.current_task()}:
            task.cancel()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_server, "ANSWER_S", 0.5)


async def probe(server: UpstreamServer) -> None:
    await server.probe()


async def complete(server: UpstreamServer) -> None:
    facts = ServerFacts(OPENAI, "", "team-7b", ("team-7b",), tokenizes=False)
    async for _ in server.generate(facts, GenerationRequest((Segment("def f(x):"),), 8), model="team-7b"):
        pass


@pytest.mark.parametrize("ask", [probe, complete])
@pytest.mark.parametrize("name", ATTACKS)
async def test_a_hostile_answer_ends_in_an_error_and_takes_little_memory(
    name: str, ask: Callable[[UpstreamServer], Awaitable[None]]
) -> None:
    async with serving(ATTACKS[name]) as (url, asked):
        server = UpstreamServer(UpstreamAddress(url, KEY), kind="openai", model="", context_tokens=4096, answer_s=0.5)
        before = psutil.Process().memory_info().rss
        with pytest.raises(UpstreamFailed) as failed:
            async with asyncio.timeout(ENDLESS_LIMIT_S):
                await ask(server)
        assert asked
        assert KEY not in str(failed.value)
        assert psutil.Process().memory_info().rss - before < 200_000_000
        server.close()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("ask", [probe, complete])
async def test_a_server_that_sends_the_request_elsewhere_is_not_obeyed(
    status: int, ask: Callable[[UpstreamServer], Awaitable[None]]
) -> None:
    async with serving(once(HEAD + b"\r\n")) as (elsewhere, got):
        moved = f"HTTP/1.1 {status} Moved\r\nLocation: {elsewhere}/v1/completions\r\nContent-Length: 0\r\n\r\n"
        async with serving(once(moved.encode())) as (url, asked):
            server = UpstreamServer(
                UpstreamAddress(url, KEY), kind="openai", model="", context_tokens=4096, answer_s=5.0
            )
            with pytest.raises(UpstreamFailed, match=str(status)):
                await ask(server)
            assert asked and KEY.encode() in asked[0]
            server.close()
        assert got == []
