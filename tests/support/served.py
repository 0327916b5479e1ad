"""Applications served in the test's own process, where tasks, descriptors and connections can be counted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path

import httpx
import psutil
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from support.played_llama import PlayedLlama

LIMIT_S = 20.0


class ServedHere(uvicorn.Server):
    """uvicorn on a unix socket, without signals."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()

    @property
    def connections(self) -> int:
        """Those that are open now."""
        return len(self.server_state.connections)


@asynccontextmanager
async def served(config: uvicorn.Config) -> AsyncIterator[ServedHere]:
    """The application of ``config`` while the block runs."""
    server = ServedHere(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done(), "the application did not start"
        await asyncio.sleep(0.005)
    try:
        yield server
    finally:
        server.should_exit = True
        await serving


def llama_application(llama: PlayedLlama) -> ASGIApp:
    """A played llama.cpp as it answers over a connection."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        content = b""
        while (message := await receive())["type"] == "http.request":
            content += message["body"]
            if not message.get("more_body"):
                break
        query = f"?{scope['query_string'].decode()}" if scope["query_string"] else ""
        request = httpx.Request(scope["method"], f"http://localhost{scope['path']}{query}", content=content)
        response = await llama.handle_async_request(request)
        headers = [(b"content-type", response.headers.get("content-type", "text/event-stream").encode())]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        assert isinstance(response.stream, httpx.AsyncByteStream)
        async for part in response.stream:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return application


class PlayedProcess:
    """Stands for the child process of a llama.cpp that is served here."""

    pid = 0
    last_words = ""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._ended = asyncio.Event()

    async def first_answer(self, timeout_s: float) -> bytes:
        return b'{"address": "unix://%s"}' % os.fsencode(self._socket)

    def memory_bytes(self) -> int:
        return 0

    async def wait(self) -> int:
        await self._ended.wait()
        return 0

    async def stop(self, grace_s: float = 2.0) -> None:
        self._ended.set()


def open_descriptors() -> int:
    """Of this process."""
    return psutil.Process().num_fds()


async def until(condition: Callable[[], object], what: str = "it never happened") -> None:
    """Wait for it; fails the test after ``LIMIT_S``."""
    deadline = asyncio.get_running_loop().time() + LIMIT_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.005)
