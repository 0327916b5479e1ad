"""One daemon with the real model for each module of tests, ended for certain when the module is done."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from peft_daemon.lifecycle.starter import stop
from peft_daemon.paths import Paths
from support.editor import Editor, editor


@pytest.fixture(scope="module")
def environ(model_file: Path, models_dir: Path) -> Iterator[Mapping[str, str]]:
    """The environment of an installation with the model; its daemon is started by the first editor that comes."""
    root = Path(tempfile.mkdtemp(prefix="pd-"))  # not tmp_path: a socket path has room for 103 bytes
    variables = {
        "PEFT_DAEMON_HOME": str(root),
        "PEFT_DAEMON_MODELS_DIR": str(models_dir),
        "PEFT_DAEMON_SHIPPED_ADAPTERS": "false",
        "PEFT_DAEMON_CONTEXT_TOKENS": "512",  # a prompt that fills it is read in seconds
        "PEFT_DAEMON_TIME_BUDGET_FILL_MS": "120000",  # a shared machine may be slow; these tests are not about time
    }
    yield variables
    asyncio.run(stop(Paths.from_environment(variables)))
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
async def one(environ: Mapping[str, str]) -> AsyncIterator[Editor]:
    """An editor whose model is loaded."""
    async with editor(environ, settings={"maxTokens": 48}) as each:
        await each.ready()
        yield each
