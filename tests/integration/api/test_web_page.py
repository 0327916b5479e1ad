"""A web page that the user has open reaches nothing of a daemon that listens on a port, whatever it sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from peft_daemon.lifecycle.runtime_info import DaemonInfo, find_running_daemon
from support.played_daemon import played_home

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIMPLE = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x")
"""The types of bodies that a page may send to any server without asking it first."""
BODY = b'{"prefix": "x = "}'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemon() -> AsyncIterator[DaemonInfo]:
    async with played_home(PEFT_DAEMON_LISTEN="tcp") as home:
        found = find_running_daemon(home.paths)
        assert found is not None
        yield found


async def raw(daemon: DaemonInfo, start: str, *headers: str, body: bytes = b"") -> tuple[int, str]:
    """Send these lines as they stand, with the right token, as if a page had guessed it; status and the rest."""
    address = urlsplit(daemon.address)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    upgrades = any(line.startswith("Upgrade") for line in headers)
    connection = "Connection: Upgrade, close" if upgrades else "Connection: close"
    lines = [start, *headers, f"Authorization: Bearer {daemon.token}", f"Content-Length: {len(body)}", connection]
    writer.write("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body)
    answer = (await reader.read()).decode()
    writer.close()
    return int(answer.split()[1]), answer


async def routes(daemon: DaemonInfo) -> list[tuple[str, str]]:
    _, answer = await raw(daemon, "GET /openapi.json HTTP/1.1", "Host: localhost")
    paths = json.loads(answer.partition("\r\n\r\n")[2])["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


@pytest.mark.parametrize("origin", ["null", "https://evil.example", "http://localhost:3000", "vscode-webview://x"])
async def test_no_route_takes_a_request_of_a_page_and_none_lets_it_read_the_answer(
    daemon: DaemonInfo, origin: str
) -> None:
    for method, path in await routes(daemon):
        for kind in SIMPLE if method == "POST" else ("",):
            headers = ("Host: localhost", f"Origin: {origin}", f"Content-Type: {kind}")
            status, answer = await raw(daemon, f"{method} {path} HTTP/1.1", *headers, body=BODY)
            assert status == 403, (method, path)
            assert "access-control" not in answer.lower()


async def test_a_page_that_asks_first_is_refused(daemon: DaemonInfo) -> None:
    for asked in ("Access-Control-Request-Method: POST", "Access-Control-Request-Private-Network: true"):
        headers = ("Host: localhost", "Origin: https://evil.example", asked)
        status, answer = await raw(daemon, "OPTIONS /v1/complete HTTP/1.1", *headers)
        assert status == 403
        assert "access-control" not in answer.lower()


@pytest.mark.parametrize("origin", ["", "Origin: https://evil.example"])
async def test_no_websocket_is_opened(daemon: DaemonInfo, origin: str) -> None:
    upgrade = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
    given = ("Host: localhost", *upgrade, *filter(None, [origin]))
    status, answer = await raw(daemon, "GET /v1/status HTTP/1.1", *given)
    assert status == (403 if origin else 200)
    assert "upgrade: websocket" not in answer.lower()


async def test_a_name_that_leads_here_is_refused_also_beside_the_right_one(daemon: DaemonInfo) -> None:
    for hosts in (("rebound.example",), ("localhost", "rebound.example"), ("rebound.example", "localhost"), ()):
        status, _ = await raw(daemon, "GET /v1/status HTTP/1.1", *(f"Host: {host}" for host in hosts))
        assert status in (400, 403), hosts
    status, _ = await raw(daemon, "GET http://rebound.example/v1/status HTTP/1.1", "Host: rebound.example")
    assert status == 403
