"""The homes that earlier versions left (``tests/fixtures/homes``), as if this machine's user had them."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from peft_daemon.lifecycle.stop import stop_daemon
from peft_daemon.models.catalogue import open_catalogue
from support.tiny_entry import HUB, tiny_entry
from support.tiny_service import TinyService, variables_of

FOLDER = Path(__file__).parents[1] / "fixtures" / "homes"
NAMES = sorted(each.name for each in FOLDER.iterdir() if each.is_dir() and each.name[0].isdigit())
PRESENT = NAMES[-1]


@asynccontextmanager
async def earlier_home(name: str) -> AsyncIterator[TinyService]:
    """A copy of one, private as it was, with its model's file; whatever runs there is ended at the end."""
    root = Path(tempfile.mkdtemp(prefix="pd-"))  # a socket path has room for 103 bytes
    home = root / "home"
    shutil.copytree(FOLDER / name, home)
    for path in (home, *home.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    shutil.copy(FOLDER / "tiny.gguf", home / "cache" / "models" / "tiny" / "tiny.gguf")
    service = TinyService(root, variables_of(root))
    # The one thing that is not the earlier version's: it had the model in its own catalogue.
    open_catalogue(service.paths).add(tiny_entry((FOLDER / "tiny.gguf").read_bytes(), HUB))
    try:
        yield service
    finally:
        await stop_daemon(service.paths)
        await asyncio.to_thread(shutil.rmtree, root, ignore_errors=True)
