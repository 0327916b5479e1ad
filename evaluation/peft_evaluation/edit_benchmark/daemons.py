"""The real daemons that a run talks to: one for each model, in a home of its own with the user's adapters."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.adapters.shipped_adapters import update_shipped_adapters
from peft_daemon.client import DaemonClient
from peft_daemon.lifecycle.stop import stop_daemon
from peft_tuning.installation import Installation

READY_S = 300.0


class EditDaemons:
    """Daemons that are started when they are first needed and end with the ``async with`` block."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        # A short prefix, as the path of a unix socket below it may have only 103 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="pde-"))
        self._clients: dict[str, DaemonClient] = {}
        self._started: list[Paths] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for client in self._clients.values():
                await client.aclose()
            for paths in self._started:
                await stop_daemon(paths)
        finally:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def client(self, model: str) -> DaemonClient:
        """Return a client of the daemon with this model for next edits, which is loaded; empty: the installation's.

        Raises what starting a daemon raises: NotFound without the model, EngineFailed if it cannot be loaded.
        """
        if model not in self._clients:
            settings, paths = self._settings(model), self._paths(len(self._started))
            await asyncio.to_thread(_furnish, self._installation.paths, settings, paths)
            self._started.append(paths)
            self._clients[model] = client = await DaemonClient.connect(settings, paths)
            await client.wait_ready(READY_S)
        return self._clients[model]

    def _settings(self, model: str) -> Settings:
        """Return the installation's settings, without learning and recording, with models from where it has them."""
        given = self._installation.settings
        return msgspec.structs.replace(
            given,
            edit_model=model or given.edit_model,
            models_dir=given.models_dir or str(self._installation.paths.models),
            look_ahead=False,  # what is generated ahead of a completion would be in the way of the next policy
            learn="off",
            feedback="off",
        )

    def _paths(self, number: int) -> Paths:
        return Paths.from_environment({"PEFT_DAEMON_HOME": str(self._folder / str(number))})


def _furnish(given: Paths, settings: Settings, paths: Paths) -> None:
    """Give a home the adapters and models that the user added, and the shipped adapters, as `setup` does."""
    paths.data.mkdir(mode=0o700, parents=True)
    with contextlib.suppress(FileNotFoundError):
        shutil.copytree(given.adapters, paths.adapters)
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(given.user_catalogue, paths.user_catalogue)
    update_shipped_adapters(settings, paths)
