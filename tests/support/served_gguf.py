"""The daemon's application, in this process, serving a tiny GGUF file with a real llama.cpp child."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil

from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_core.status_types import DaemonStatus, EngineState
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.app import create_app
from peft_daemon.lifecycle.runtime_info import DaemonInfo
from peft_daemon.models.catalogue import open_catalogue
from peft_daemon.models.store import ModelStore
from peft_daemon.routes.middleware import Activity
from support.synthetic_adapter import TinyModel
from support.tiny_entry import HUB, tiny_entry
from support.waiting import until_answer

LIMIT_S = 60.0


@dataclass(frozen=True)
class ServedGguf:
    """A client of the application, and the files it serves."""

    client: httpx.AsyncClient
    base: BaseModel
    registry: AdapterRegistry

    @property
    def file(self) -> Path:
        """The model's."""
        return self.base.path

    async def complete(self, **changes: Any) -> httpx.Response:
        """Ask for a completion of code that the tiny model always completes in the same way."""
        body = {"prefix": "def f(x):\n    return ", "suffix": "\n", "max_tokens": 6, "task": "fill", **changes}
        return await self.client.post("/v1/complete", json=body)

    async def raw(self, model: str = "tiny") -> httpx.Response:
        """Ask for the model's own words."""
        body = {"model": model, "prompt": "def f(x):", "max_tokens": 12, "temperature": 0}
        return await self.client.post("/v1/completions", json=body)

    async def status(self) -> DaemonStatus:
        return msgspec.json.decode((await self.client.get("/v1/status")).content, type=DaemonStatus)

    async def until(self, condition: Callable[[DaemonStatus], bool]) -> DaemonStatus:
        """Wait for something that the engine's supervision does."""
        return await until_answer(self.status, condition, "another state of the daemon")

    async def kill_engine(self) -> None:
        """As the system does when it lacks memory."""
        ready = await self.until(lambda status: status.engine.state is EngineState.READY)
        assert ready.engine.pid is not None
        psutil.Process(ready.engine.pid).kill()
        await self.until(lambda status: status.engine.pid != ready.engine.pid)


@asynccontextmanager
async def served_gguf(
    root: Path,
    *,
    before_start: Callable[[Path], object] = lambda file: None,
    prepare_home: Callable[[Paths], object] = lambda paths: None,
    settled: EngineState = EngineState.READY,
    **changes: Any,
) -> AsyncIterator[ServedGguf]:
    """An installation below ``root`` whose engine is ready, or ``settled``; ``changes`` are of its settings.

    ``before_start`` is called with the installed model's file, ``prepare_home`` with the folders.
    """
    given = TinyModel.random().write(root / "given.gguf")
    entry = tiny_entry(given.path.read_bytes(), HUB)
    installed = ModelStore(root / "models", offline=True).pull(entry, local=given.path)
    before_start(installed.path)
    fixed = {"model": entry.id, "threads": 1, "slots": 1, "shipped_adapters": False, "feedback": False}
    settings = Settings(models_dir=str(root / "models"), **(fixed | changes))  # type: ignore[arg-type]
    info = DaemonInfo(
        pid=1, created=0.0, address="unix:/nowhere", version="0", protocol=1, config_digest="", started=time.time()
    )
    with tempfile.TemporaryDirectory(prefix="pd-") as home:  # a socket path has room for 103 bytes
        paths = Paths.from_environment({"PEFT_DAEMON_HOME": home})
        open_catalogue(paths).add(entry)
        prepare_home(paths)
        app = create_app(settings, paths, info, Activity())
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=LIMIT_S
            ) as client,
        ):
            base = BaseModel(entry.id, entry.sha256, installed.path)
            served = ServedGguf(client, base, AdapterRegistry(paths.adapters))
            await served.until(lambda status: status.engine.state is settled)
            yield served
