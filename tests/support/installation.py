"""An installation with the real model, as editors find it: each starts the daemon by itself if none runs."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from peft_core.paths import Paths
from peft_daemon.lifecycle.stop import stop_daemon


@contextlib.contextmanager
def installation(models_dir: Path) -> Iterator[Mapping[str, str]]:
    """The environment that makes processes use it; its daemon is ended for certain at the end."""
    root = Path(tempfile.mkdtemp(prefix="pd-"))  # not tmp_path: a socket path has room for 103 bytes
    variables = {
        "PEFT_DAEMON_HOME": str(root),
        "PEFT_DAEMON_MODELS_DIR": str(models_dir),
        "PEFT_DAEMON_SHIPPED_ADAPTERS": "false",
        "PEFT_DAEMON_CONTEXT_TOKENS": "512",  # a prompt that fills it is read in seconds
        "PEFT_DAEMON_TIME_BUDGET_FILL_MS": "120000",  # a shared machine may be slow; these tests are not about time
    }
    try:
        yield variables
    finally:
        asyncio.run(stop_daemon(Paths.from_environment(variables)))
        shutil.rmtree(root, ignore_errors=True)
