"""Homes for each test: one without a model, and one whose model is played."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from peft_daemon.lifecycle.info import running_daemon
from peft_daemon.lifecycle.starter import stop
from peft_daemon.paths import Paths
from support.played_daemon import Played, PlayedModel, spawn


@pytest.fixture
async def bare() -> AsyncIterator[dict[str, str]]:
    """The environment of an installation whose models folder is empty; its daemon is ended afterwards."""
    root = Path(tempfile.mkdtemp(prefix="pd-"))  # not tmp_path: a socket path has room for 103 bytes
    environ = {"PEFT_DAEMON_HOME": str(root / "home"), "PEFT_DAEMON_MODELS_DIR": str(root / "models")}
    yield environ
    await stop(Paths.from_environment(environ))
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
async def played() -> AsyncIterator[Played]:
    """A daemon with a played model, which any editor in its environment finds running."""
    root = Path(tempfile.mkdtemp(prefix="pd-"))
    environ = {"PEFT_DAEMON_HOME": str(root / "home"), "PEFT_DAEMON_SHIPPED_ADAPTERS": "false"}
    home = Played(environ, PlayedModel(root / "script.json"))
    process = spawn(root / "script.json", environ)
    try:
        while running_daemon(home.paths) is None:
            assert process.poll() is None, "the daemon ended"
            await asyncio.sleep(0.02)
        yield home
    finally:
        await stop(home.paths)
        process.wait(10)
        shutil.rmtree(root, ignore_errors=True)
