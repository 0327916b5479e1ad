"""A small HTTP server that answers as a test says and notes what it is asked: an upstream of any kind, or of none."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

JSON, EVENTS, HTML = "application/json", "text/event-stream", "text/html; charset=utf-8"


@dataclass
class PlayedAnswer:
    """An answer: a body in pieces, and whether more never comes after them."""

    pieces: Iterable[bytes] = ()
    status: int = 200
    content_type: str = JSON
    hangs: bool = False


@dataclass(frozen=True)
class PlayedRequest:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


def json_answer(value: object, status: int = 200) -> PlayedAnswer:
    return PlayedAnswer([json.dumps(value).encode()], status)


def events_answer(*events: object, hangs: bool = False) -> PlayedAnswer:
    """A stream of server-sent events; text is sent as it is."""
    data = [each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in events]
    return PlayedAnswer([f"data: {each}\n\n".encode() for each in data], content_type=EVENTS, hangs=hangs)


def lines_answer(*events: object) -> PlayedAnswer:
    """A stream of lines of JSON."""
    return PlayedAnswer([json.dumps(each).encode() + b"\n" for each in events], content_type="application/x-ndjson")


Route = Callable[[Any], PlayedAnswer]


@dataclass
class PlayedUpstream:
    """The server, its routes by path, and the requests so far. What has no route is 404."""

    routes: dict[str, Route]
    url: str = ""
    requests: list[PlayedRequest] = field(default_factory=list)
    drops_reused: bool = False
    """Whether a connection's second request gets no answer: what a client sees of a keep-alive that ended meanwhile."""
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client closed its connection while an answer hung."""

    def to(self, path: str) -> list[PlayedRequest]:
        """The requests for a path."""
        return [request for request in self.requests if request.path == path]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered = 0
        try:
            while (request := await _request(reader)) and not (self.drops_reused and answered):
                answered += 1
                self.requests.append(request)
                route = self.routes.get(request.path, lambda _: json_answer({"detail": "Not Found"}, 404))
                if await self._answer(route(request.body), reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            self.hung_up.set()
        finally:
            writer.close()

    async def _answer(self, answer: PlayedAnswer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send an answer; return whether the connection is over."""
        head = f"HTTP/1.1 {answer.status} Played\r\nContent-Type: {answer.content_type}\r\n"
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for piece in answer.pieces:
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
        if answer.hangs:
            await reader.read()
            self.hung_up.set()
            return True
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return False


async def _request(reader: asyncio.StreamReader) -> PlayedRequest | None:
    line = (await reader.readline()).decode()
    if not line:
        return None
    method, path, _ = line.split(" ")
    headers = {}
    while (header := (await reader.readline()).decode().strip()) != "":
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return PlayedRequest(method, path, headers, json.loads(body) if body else None)


@asynccontextmanager
async def played_upstream(
    routes: dict[str, Route], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[PlayedUpstream]:
    """Serve until the block ends."""
    played = PlayedUpstream(routes)
    server = await asyncio.start_server(played.serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    played.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield played
    finally:
        server.close()
