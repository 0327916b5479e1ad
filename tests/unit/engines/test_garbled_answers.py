"""What no intact model writes: the request fails, and the model's file is suspected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from peft_core.child_process import ChildProcess
from peft_daemon.engines.base import GarbledOutput, GenerationRequest, LoadChecks, Segment
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions
from support.played_llama import PlayedConnection

REQUEST = GenerationRequest((Segment("x"),), 4)


class Garbling(httpx.AsyncBaseTransport):
    """A llama.cpp server that answers each completion with ``body``."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        self.body, self.status = body, status

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/tokenize":
            return httpx.Response(200, json={"tokens": [1]})
        return httpx.Response(self.status, content=self.body)


class PlayedProcess:
    """The process of a child; it lives until it is ended."""

    pid = 0
    stderr_tail = ""

    def __init__(self) -> None:
        self._ended = asyncio.Event()

    async def first_line(self, timeout_s: float) -> bytes:
        return b'{"address": "http://127.0.0.1:1"}'

    async def wait(self) -> int:
        await self._ended.wait()
        return 0

    async def stop(self, grace_s: float = 2.0) -> None:
        self._ended.set()

    def stopped(self) -> bool:
        return False

    def kill(self) -> None:
        self._ended.set()


Engine = tuple[LlamaCppEngine, list[str]]


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Awaitable[Engine]]]:
    engines: list[LlamaCppEngine] = []

    async def spawn(module: str, configuration: bytes) -> PlayedProcess:
        return PlayedProcess()

    async def make(body: bytes, status: int = 200) -> Engine:
        suspicions: list[str] = []
        checks = LoadChecks(lambda: tmp_path, lambda _: None, suspicions.append)
        engine = LlamaCppEngine(LlamaCppOptions("tiny", tmp_path, tmp_path, checks=checks))
        monkeypatch.setattr(ChildProcess, "spawn", spawn)
        engines.append(engine)
        await engine.start()
        await engine.ready()
        assert engine.child is not None
        engine.child.server.connections.connect = lambda: PlayedConnection(Garbling(body, status))
        return engine, suspicions

    yield make
    for each in engines:
        await each.stop()


async def text(items: AsyncGenerator[object, None]) -> str:
    return "".join([getattr(item, "text", "") async for item in items])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"data: {nonsense\n\n", 200),
        (b'data: {"error": {"message": "Unexpected empty grammar stack after accepting piece"}}\n\n', 200),
        (b'{"error": {"message": "Unexpected empty grammar stack", "type": "server_error"}}', 500),
    ],
)
async def test_nonsense_is_an_error_that_names_the_file(
    engine: Callable[..., Awaitable[Engine]], body: bytes, status: int
) -> None:
    one, suspicions = await engine(body, status)
    with pytest.raises(GarbledOutput, match="model's file may be damaged"):
        await text(one.generate(REQUEST))
    assert len(suspicions) == 1


async def test_bytes_that_are_no_text_are_passed_on_and_suspected(engine: Callable[..., Awaitable[Engine]]) -> None:
    event = 'data: {"content": "a\ufffdb", "stop": true, "stop_type": "limit"}\n\n'
    one, suspicions = await engine(event.encode())
    assert await text(one.generate(REQUEST)) == "a\ufffdb"
    assert suspicions == ["it wrote bytes that are no text"]


async def test_ordinary_text_and_ordinary_errors_suspect_nothing(engine: Callable[..., Awaitable[Engine]]) -> None:
    one, suspicions = await engine(b'data: {"content": "caf\xc3\xa9", "stop": true, "stop_type": "limit"}\n\n')
    assert await text(one.generate(REQUEST)) == "caf\u00e9"
    assert suspicions == []
