"""A real daemon, in a process of its own, whose engine serves a tiny random model."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import psutil

from peft_core.paths import Paths
from peft_core.status_types import DaemonStatus
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.lifecycle.stop import stop_daemon
from peft_daemon.models.catalogue import open_catalogue
from peft_daemon.models.store import ModelStore
from support.running_daemon import RunningDaemon, start_daemon
from support.synthetic_adapter import TinyModel
from support.tiny_entry import HUB, tiny_entry

CONTEXT_TOKENS = 512
HOLE = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
LONGEST_REQUEST_S = 20
"""The daemon's ``request_limit_s``."""


@dataclass(frozen=True)
class TinyServing:
    """The daemon, its registry as another process changes it, and its engine's processes."""

    daemon: RunningDaemon
    paths: Paths
    model: TinyModel
    base: BaseModel
    registry: AdapterRegistry

    def client(self) -> httpx.AsyncClient:
        """A client with connections of its own; it waits for longer than any request may take."""
        transport = httpx.AsyncHTTPTransport(uds=self.daemon.address.removeprefix("unix:"))
        return httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=10 * LONGEST_REQUEST_S)

    async def status(self, client: httpx.AsyncClient) -> DaemonStatus:
        return msgspec.json.decode((await client.get("/v1/status")).content, type=DaemonStatus)

    def engines(self) -> list[psutil.Process]:
        """The engine's processes that live."""
        return [each for each, status in self.children().items() if status != psutil.STATUS_ZOMBIE]

    def children(self) -> dict[psutil.Process, str]:
        """All processes that the daemon started and has not waited for, dead ones too, each with its status."""
        found = {}
        for each in psutil.Process(self.daemon.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                found[each] = each.status()
        return found

    def engine_sockets(self) -> list[Path]:
        """The sockets of engines that lie in this home."""
        return list(Path(self.daemon.address.removeprefix("unix:")).parent.glob("e-*.sock"))


@contextlib.contextmanager
def tiny_serving(engine: str, **settings: object) -> Iterator[TinyServing]:
    """A daemon with this engine that is ready; at the end it is gone with all that it started."""
    root = Path(tempfile.mkdtemp(prefix="pd-"))  # not tmp_path: a socket path has room for 103 bytes
    model = TinyModel.random()
    given = model.write(root / "given.gguf", pretokenizer="qwen2", context_tokens=CONTEXT_TOKENS, control=HOLE)
    entry = tiny_entry(given.path.read_bytes(), HUB)
    installed = ModelStore(root / "models", offline=True).pull(entry, local=given.path)
    fixed = {
        "home": root,
        "models_dir": root / "models",
        "model": entry.id,
        "engine": engine,
        "threads": 1,
        "shipped_adapters": False,
        "feedback": "off",
        "learn": "off",
        "request_limit_s": LONGEST_REQUEST_S,
    }
    environment = {f"PEFT_DAEMON_{name.upper()}": str(value) for name, value in (fixed | settings).items()}
    paths = Paths.from_environment(environment)
    open_catalogue(paths).add(entry)
    try:
        daemon = start_daemon(root, environment)
        base = BaseModel(entry.id, entry.sha256, installed.path)
        yield TinyServing(daemon, paths, model, base, AdapterRegistry(paths.adapters))
    finally:
        asyncio.run(stop_daemon(paths))
        shutil.rmtree(root, ignore_errors=True)
