"""An installation whose real daemon serves a tiny random model: processes, sockets and files are the product's."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from peft_core.paths import Paths
from peft_core.settings import Settings, resolve
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.client import CompleteRequest, DaemonClient
from peft_daemon.feedback import FeedbackStore
from peft_daemon.lifecycle.failed_starts import reset_backoff
from peft_daemon.lifecycle.stop import stop_daemon
from peft_daemon.models.catalogue import ModelEntry, open_catalogue
from peft_daemon.models.store import ModelStore, open_store
from support.synthetic_adapter import TinyModel, lora, write_peft
from support.tiny_entry import HUB, tiny_entry

READY_S = 120.0


@dataclass(frozen=True)
class TinyService:
    """The folders of one user, and what uses them."""

    root: Path
    variables: Mapping[str, str]

    @property
    def environ(self) -> dict[str, str]:
        """Of this user's processes."""
        return {**os.environ, **self.variables}

    @property
    def paths(self) -> Paths:
        return Paths.from_environment(self.variables)

    @property
    def notes(self) -> Path:
        """A file outside the home."""
        return self.root / "notes"

    @property
    def settings(self) -> Settings:
        return resolve(environ=self.variables, user_file=self.paths.config_file).settings

    @property
    def entry(self) -> ModelEntry:
        return open_catalogue(self.paths).get(self.settings.model)

    @property
    def store(self) -> ModelStore:
        return open_store(self.settings, self.paths)

    @property
    def file(self) -> Path:
        """The model's."""
        return self.store.file(self.entry)

    @cached_property
    def registry(self) -> AdapterRegistry:
        return AdapterRegistry(self.paths.adapters)

    @cached_property
    def feedback(self) -> FeedbackStore:
        return FeedbackStore(self.paths.feedback_file)

    def peft(self, seed: int) -> Path:
        """A PEFT folder whose adapter changes what is answered."""
        folder = self.root / f"peft{seed}"
        return folder if folder.exists() else write_peft(folder, lora(seed=seed))

    def import_adapter(self, seed: int, name: str) -> str:
        """Import one; returns its digest."""
        base = BaseModel(self.entry.id, self.entry.sha256, self.file)
        return self.registry.import_(self.peft(seed), name=name, base=base).digest

    async def client(self) -> DaemonClient:
        """A client of the daemon, which is started if there is none, as `peft-daemon start` does it."""
        reset_backoff(self.paths)
        return await DaemonClient.connect(self.settings, self.paths)

    async def ready(self) -> DaemonClient:
        """The same, once the model is loaded."""
        client = await self.client()
        await client.wait_ready(READY_S)
        return client


def variables_of(root: Path) -> dict[str, str]:
    """What makes a process use the home below ``root``, and the tiny model."""
    return {
        "PEFT_DAEMON_HOME": str(root / "home"),
        "PEFT_DAEMON_MODEL": "tiny",
        "PEFT_DAEMON_OFFLINE": "true",
        "PEFT_DAEMON_SHIPPED_ADAPTERS": "false",
        "PEFT_DAEMON_THREADS": "1",
        "PEFT_DAEMON_SLOTS": "1",
        "PEFT_DAEMON_TIME_BUDGET_FILL_MS": "120000",
    }


def ask(adapter: str | None = "base", prefix: str = "def f(x):\n    return ") -> CompleteRequest:
    """A request that the tiny model always answers in the same way."""
    return CompleteRequest(prefix=prefix, suffix="\n", language="python", max_tokens=6, adapter=adapter)


@asynccontextmanager
async def tiny_service(**variables: str) -> AsyncIterator[TinyService]:
    """A home in which the tiny model is installed, and no daemon yet; whatever runs there is ended at the end."""
    root = Path(tempfile.mkdtemp(prefix="pd-"))  # a socket path has room for 103 bytes
    service = TinyService(root, variables_of(root) | variables)
    install_model(service)
    try:
        yield service
    finally:
        await stop_daemon(service.paths)
        await asyncio.to_thread(shutil.rmtree, root, ignore_errors=True)


def install_model(service: TinyService) -> None:
    """Put the tiny model where this user's daemon looks for it."""
    given = TinyModel.random().write(service.root / "given.gguf")
    entry = tiny_entry(given.path.read_bytes(), HUB)
    open_catalogue(service.paths).add(entry)
    service.store.pull(entry, local=given.path)
