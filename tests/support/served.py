"""Applications served in the test's own process, where tasks, descriptors and connections can be counted."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from peft_core import __version__
from peft_core.api_types import PROTOCOL_VERSION
from peft_core.child_process import ChildProcess
from peft_core.paths import Paths
from peft_core.process_identity import ProcessIdentity
from peft_core.settings import resolve
from peft_daemon import app
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions
from peft_daemon.engines.llamacpp.server import LlamaServerClient
from peft_daemon.lifecycle.runtime_info import DaemonInfo, publish_info
from peft_daemon.models.optimized import ModelFile
from peft_daemon.routes.middleware import Activity, RequestIdMiddleware, UnfinishedRequestMiddleware
from peft_daemon.server import server_config
from support.played_llama import PlayedLlama
from support.waiting import until


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
    await until(lambda: server.started or serving.done(), "the application")
    assert not serving.done(), "the application did not start"
    try:
        yield server
    finally:
        server.should_exit = True
        await serving


def llama_application(llama: PlayedLlama) -> ASGIApp:
    """A played llama.cpp as it answers over a connection."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        content, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            content, more = content + message["body"], message["more_body"]
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
    stderr_tail = ""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._ended = asyncio.Event()

    async def first_line(self, timeout_s: float) -> bytes:
        return b'{"address": "unix://%s"}' % os.fsencode(self._socket)

    def memory_bytes(self) -> int:
        return 0

    async def wait(self) -> int:
        await self._ended.wait()
        return 0

    async def stop(self, grace_s: float = 2.0) -> None:
        self._ended.set()

    def stopped(self) -> bool:
        return False

    def kill(self) -> None:
        self._ended.set()


@dataclass(frozen=True)
class DaemonHere:
    """A daemon in this process; the engine's child is a played llama.cpp, which is served here too."""

    paths: Paths
    socket: str
    api: ServedHere
    llama: ServedHere
    engine: LlamaCppEngine

    @property
    def server(self) -> LlamaServerClient:
        """The engine's client of the played llama.cpp."""
        assert self.engine.child is not None
        return self.engine.child.server


@asynccontextmanager
async def daemon_here(llama: PlayedLlama, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DaemonHere]:
    """Routes, service, pipeline, engine and clients are the product's."""
    root = Path(tempfile.mkdtemp(prefix="pd-"))  # a socket path has room for 103 bytes
    model = root / "model.gguf"
    model.write_bytes(b"GGUF")
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(root / "home")})
    settings = resolve(environ={"PEFT_DAEMON_SHIPPED_ADAPTERS": "false"}).settings

    async def spawn(*_: object, **__: object) -> PlayedProcess:
        return PlayedProcess(root / "llama")

    engine = LlamaCppEngine(LlamaCppOptions("played", model, root, slots=len(llama.slots), batch_tokens=8))
    monkeypatch.setattr(ChildProcess, "spawn", spawn)
    monkeypatch.setattr(app.factory, "create_engine", lambda *_, **__: engine)
    monkeypatch.setattr(app, "open_store", lambda *_: PlayedStore(model))
    process = ProcessIdentity.current()
    info = DaemonInfo(
        pid=process.pid,
        created=process.created,
        address=f"unix:{root / 'api'}",
        version=__version__,
        protocol=PROTOCOL_VERSION,
        config_digest=settings.digest(),
        started=0.0,
    )
    served_app = RequestIdMiddleware(UnfinishedRequestMiddleware(app.create_app(settings, paths, info, Activity())))
    config = server_config(served_app, drain_s=5)
    config.uds = str(root / "api")
    llama_config = uvicorn.Config(
        llama_application(llama), uds=str(root / "llama"), lifespan="off", log_config=None, ws="none"
    )
    async with served(llama_config) as child, served(config) as api:
        publish_info(paths, info)
        yield DaemonHere(paths, config.uds, api, child, engine)
    shutil.rmtree(root)


class PlayedStore:
    """A model store that has this one file."""

    def __init__(self, model: Path) -> None:
        self._served = ModelFile(model, "0" * 64)

    def file_to_serve(self, *_: object) -> ModelFile:
        return self._served


def open_descriptors() -> int:
    """Of this process."""
    return psutil.Process().num_fds()
