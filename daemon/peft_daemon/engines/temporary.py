"""Temporary engines: a model loaded beside the daemon's, for measurements that must not disturb it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from peft_core.settings import Settings
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines import factory, limits
from peft_daemon.engines.base import Engine
from peft_daemon.models.catalogue import ModelEntry

MEASURED_BATCH_TOKENS = 64
"""Prompt tokens per step of a measuring engine: nothing is cancelled there, and larger steps read faster."""


def measurement_settings(settings: Settings, *, threads: int = 0, slots: int = 1) -> Settings:
    """Return ``settings`` for repeatable measurements with ``slots`` requests at a time; 0 threads keeps their number.

    Speculation is off: a batch rounds otherwise than single tokens do, and a figure must not depend on repeated text.
    """
    return msgspec.structs.replace(
        settings,
        batch_tokens=MEASURED_BATCH_TOKENS,
        slots=slots,
        threads=threads or settings.threads,
        speculation="off",
    )


@asynccontextmanager
async def temporary_engine(
    settings: Settings,
    entry: ModelEntry,
    path: Path,
    *,
    context_tokens: int | None = None,
    adapters: tuple[AdapterLease, ...] = (),
    adapters_folder: Path | None = None,
) -> AsyncGenerator[Engine, None]:
    """Start the engine of ``settings`` with the model at ``path``; yield it when ready, stop it after the block.

    ``context_tokens`` bounds the context instead of the model's own length; ``adapters`` are loaded at the start, and
    others that requests name lie below ``adapters_folder``. No KV states are saved. Raises InvalidInput where the
    engine is not installed, EngineFailed where it cannot start.
    """
    # Not below the user's folders: the path of a socket has room for 103 bytes.
    with tempfile.TemporaryDirectory(prefix="pd-") as folder:
        engine = factory.create_engine(
            settings,
            model_id=entry.id,
            model_path=path,
            context_tokens=limits.context_tokens(settings, context_tokens or entry.context_tokens),
            socket_folder=Path(folder),
            adapters=adapters,
            adapters_folder=adapters_folder,
        )
        await engine.start()
        try:
            await engine.ready()
            yield engine
        finally:
            await engine.stop()
