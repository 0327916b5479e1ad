"""Which engine serves, by the setting ``engine``."""

from __future__ import annotations

from pathlib import Path

from peft_daemon.config import Settings
from peft_daemon.engines.base import LLAMACPP, TORCH, AdapterLease, Engine


def chosen(settings: Settings) -> str:
    """The id of the engine; ``auto`` is llama.cpp, which is the faster one on a CPU."""
    return TORCH if settings.engine == TORCH else LLAMACPP


def create(
    settings: Settings,
    *,
    model_id: str,
    model_path: Path,
    context_tokens: int,
    socket_folder: Path,
    adapters: tuple[AdapterLease, ...] = (),
) -> Engine:
    """The engine for this model, not started yet.

    ``socket_folder`` is one only this user can enter; ``adapters`` are those that are likely to be asked for. Raises
    InvalidInput where the engine is not installed.
    """
    if chosen(settings) == TORCH:
        from peft_daemon.engines.torch import TorchEngine, TorchOptions, require_installed  # noqa: PLC0415  (one or the other)

        require_installed()
        return TorchEngine(
            TorchOptions(
                model_id=model_id,
                model_path=model_path,
                precision=settings.torch_precision,
                context_tokens=context_tokens,
                threads=settings.threads,
                batch_tokens=settings.batch_tokens,
                max_loaded_adapters=settings.max_loaded_adapters,
            )
        )
    from peft_daemon.engines.llamacpp import LlamaCppEngine, LlamaCppOptions  # noqa: PLC0415  (one or the other)

    return LlamaCppEngine(
        LlamaCppOptions(
            model_id=model_id,
            model_path=model_path,
            socket_folder=socket_folder,
            context_tokens=context_tokens,
            slots=settings.slots,
            threads=settings.threads,
            batch_tokens=settings.batch_tokens,
            max_loaded_adapters=settings.max_loaded_adapters,
            adapters=adapters,
        )
    )
