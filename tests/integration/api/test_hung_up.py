"""A client may hang up at any moment: its work stops, and the log stays readable."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from support.played_llama import PlayedLlama
from support.served import DaemonHere, daemon_here
from support.waiting import until

BODY = msgspec.json.encode({"prefix": "x = ", "suffix": "\n", "max_tokens": 4, "language": "python"})
STREAMED = msgspec.json.encode({**msgspec.json.decode(BODY), "stream": True})
ROUTES = {
    "/v1/complete": STREAMED,
    "/v1/warm": msgspec.json.encode({**msgspec.json.decode(BODY), "document": "d"}),
    "/v1/completions": b'{"prompt": "x = ", "max_tokens": 4, "stream": true}',
    "/v1/chat/completions": b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 4, "stream": true}',
    "/infill": b'{"input_prefix": "x = ", "n_predict": 4, "stream": true}',
}


@pytest.fixture
async def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DaemonHere]:
    async with daemon_here(PlayedLlama(tmp_path, (), slots=2), monkeypatch) as serving:
        yield serving


def request(path: str, body: bytes, *, headers: str = "", length: int | None = None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}"
    if "chunked" not in headers:
        head += f"Content-Length: {len(body) if length is None else length}\r\n"
    return head.encode() + b"\r\n" + body


async def hang_up(socket: str, data: bytes, *, after_steps: int, half: bool = False) -> None:
    """Send this, wait for some turns of the event loop, and close."""
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write(data)
    for _ in range(after_steps):
        await asyncio.sleep(0)
    if half:
        writer.write_eof()
        await reader.read()
    writer.transport.abort()


async def all_over(daemon: DaemonHere) -> None:
    """Also for the engine."""

    def over() -> bool:
        daemon.server.connections.close_unused()
        idle = len(daemon.server.slots.free) == 2
        return idle and not (daemon.api.connections or daemon.api.server_state.tasks or daemon.llama.connections)

    await until(over, "the end of all requests")


async def test_hanging_up_at_any_moment_stops_the_work_without_a_trace(
    daemon: DaemonHere, caplog: pytest.LogCaptureFixture
) -> None:
    random_ = random.Random(5)
    await hang_up(daemon.socket, request("/v1/complete", BODY), after_steps=3000)  # the engine is there
    for number in range(150):
        path = random_.choice(list(ROUTES))
        whole = request(path, random_.choice([ROUTES[path], BODY]))
        sent = whole[: random_.randrange(len(whole) + 1)] if number % 2 else whole
        await hang_up(daemon.socket, sent, after_steps=random_.choice([0, 1, 3, 10, 100]), half=number % 5 == 0)
    await all_over(daemon)
    assert not traces(caplog)


BROKEN = {
    "no chunk": request("/v1/complete", b"zz\r\n", headers="Transfer-Encoding: chunked\r\n"),
    "half a chunk": request("/v1/complete", b'5\r\n{"pre\r\nzz\r\n', headers="Transfer-Encoding: chunked\r\n"),
    "answered before": request("/nowhere", b'5\r\n{"pre\r\nzz\r\n', headers="Transfer-Encoding: chunked\r\n"),
    "more than a request": request("/v1/complete", STREAMED) + b"\x00\x01garbage\r\n\r\n",
    "too large": request("/v1/complete", BODY, length=10_000_000_000),
    "too short": request("/v1/complete", BODY, length=len(BODY) + 1),
    "no body": b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n",
    "no HTTP": b"\x16\x03\x01garbage\r\n\r\n",
    "nothing": b"",
}


async def test_a_broken_request_leaves_no_trace(daemon: DaemonHere, caplog: pytest.LogCaptureFixture) -> None:
    for name, data in BROKEN.items():
        for steps in (0, 2, 5, 20, 200):
            for half in (False, True):
                await hang_up(daemon.socket, data, after_steps=steps, half=half)
            await all_over(daemon)
            assert not traces(caplog), name


def traces(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [f"{record.name}: {record.getMessage()} {record.exc_info}" for record in caplog.records if record.exc_info]
