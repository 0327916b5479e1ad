"""An engine of one's own with the served model, for measuring what the daemon would answer without disturbing it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from peft_core.settings import Settings
from peft_daemon.engines import factory
from peft_daemon.engines.base import Engine
from peft_daemon.models.catalogue import ModelEntry

FAST_BATCH = 64
"""Prompt tokens per step: nobody cancels here, and larger steps read faster."""


@asynccontextmanager
async def serving(
    settings: Settings, entry: ModelEntry, path: Path, *, threads: int = 0, slots: int = 1
) -> AsyncGenerator[Engine, None]:
    """The engine of ``settings`` with the model at ``path``, ready, until the block ends; raises EngineFailed.

    ``slots`` requests are decoded together.
    """
    own = msgspec.structs.replace(
        settings,
        batch_tokens=FAST_BATCH,
        slots=slots,
        threads=threads or settings.threads,
        # A batch rounds otherwise than single tokens do: a figure must not depend on what happens to repeat.
        speculation="off",
    )
    # Not below the user's folders: a socket path has room for 103 bytes.
    with tempfile.TemporaryDirectory(prefix="pd-") as folder:
        engine = factory.create_engine(
            own,
            model_id=entry.id,
            model_path=path,
            context_tokens=min(settings.context_tokens, entry.context_tokens),
            socket_folder=Path(folder),
        )
        await engine.start()
        try:
            await engine.ready()
            yield engine
        finally:
            await engine.stop()
