"""A home without a model for each test: what the language server does when there is nothing to complete with."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from peft_core.paths import Paths
from peft_daemon.lifecycle.stop import stop_daemon


@pytest.fixture
async def bare() -> AsyncIterator[dict[str, str]]:
    """The environment of an installation whose models folder is empty; its daemon is ended afterwards."""
    root = Path(tempfile.mkdtemp(prefix="pd-"))  # not tmp_path: a socket path has room for 103 bytes
    environ = {"PEFT_DAEMON_HOME": str(root / "home"), "PEFT_DAEMON_MODELS_DIR": str(root / "models")}
    yield environ
    await stop_daemon(Paths.from_environment(environ))
    shutil.rmtree(root, ignore_errors=True)
