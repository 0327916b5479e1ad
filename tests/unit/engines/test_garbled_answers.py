"""What no intact model writes: the request fails, and the model's file is suspected."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import httpx
import pytest

from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines.base import GarbledOutput, GenerationRequest, LoadChecks, Segment
from peft_daemon.engines.heartbeat import Heartbeat
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions
from peft_daemon.engines.llamacpp.server import LlamaServerClient
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


class PlayedChild:
    """A child that is this server, as far as generating goes."""

    retired = False

    def __init__(self, body: bytes, status: int) -> None:
        self.server = LlamaServerClient("http://127.0.0.1:1", "key", slots=1, context_tokens=64, step_tokens=16)
        transport = Garbling(body, status)
        self.server.connections.connect = lambda: PlayedConnection(transport)
        self.heartbeat = Heartbeat(self.server.ping, lambda: False)
        self.adapters: tuple[AdapterLease, ...] = ()

    def serves(self, adapter: AdapterLease | None, *, plain: bool) -> bool:
        return True

    def acquire(self) -> None:
        pass

    def release(self) -> None:
        pass


Engine = tuple[LlamaCppEngine, list[str]]


@pytest.fixture
def engine(tmp_path: Path) -> Callable[..., Engine]:
    def make(body: bytes, status: int = 200) -> Engine:
        suspicions: list[str] = []
        checks = LoadChecks(lambda: tmp_path, lambda _: None, suspicions.append)
        engine = LlamaCppEngine(LlamaCppOptions("tiny", tmp_path, tmp_path, checks=checks))
        engine._current = PlayedChild(body, status)  # type: ignore[assignment]  # as much of a child as is used
        return engine, suspicions

    return make


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
    engine: Callable[..., Engine], body: bytes, status: int
) -> None:
    one, suspicions = engine(body, status)
    with pytest.raises(GarbledOutput, match="model's file may be damaged"):
        await text(one.generate(REQUEST))
    assert len(suspicions) == 1


async def test_bytes_that_are_no_text_are_passed_on_and_suspected(engine: Callable[..., Engine]) -> None:
    event = 'data: {"content": "a\ufffdb", "stop": true, "stop_type": "limit"}\n\n'
    one, suspicions = engine(event.encode())
    assert await text(one.generate(REQUEST)) == "a\ufffdb"
    assert suspicions == ["it wrote bytes that are no text"]


async def test_ordinary_text_and_ordinary_errors_suspect_nothing(engine: Callable[..., Engine]) -> None:
    one, suspicions = engine(b'data: {"content": "caf\xc3\xa9", "stop": true, "stop_type": "limit"}\n\n')
    assert await text(one.generate(REQUEST)) == "caf\u00e9"
    assert suspicions == []
