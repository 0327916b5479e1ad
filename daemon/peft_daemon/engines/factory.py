"""Which engine serves, by the setting ``engine``."""

from __future__ import annotations

from pathlib import Path

import psutil

from peft_core.api_types import LLAMACPP, TORCH
from peft_core.settings import Settings
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines.base import Engine, LoadChecks

SECOND_SLOT_FREE_BYTES = 1 << 30
"""Bytes that must be free, besides the model and half as much again, for a second slot."""


SPECULATION_BY_DEFAULT = True
"""On two cores, by `benchmarks/speculation.py`: faster where code repeats, not slower elsewhere (docs/engines.md)."""


def engine_id(settings: Settings) -> str:
    """The id of the engine; ``auto`` is llama.cpp, which is the faster one on a CPU."""
    return TORCH if settings.engine == TORCH else LLAMACPP


def uses_speculation(settings: Settings) -> bool:
    """Whether llama.cpp guesses the continuation from what stands in the prompt; ``auto`` is what was measured."""
    return SPECULATION_BY_DEFAULT if settings.speculation == "auto" else settings.speculation == "on"


def slot_count(settings: Settings, model_path: Path) -> int:
    """How many requests are decoded at a time: the setting, else what fits into free memory.

    Two windows that each have a slot do not have to read their documents again and again. A slot's KV state of 4,096
    tokens is a tenth of a small model; torch decodes one request at a time whatever there is.
    """
    if settings.slots or engine_id(settings) == TORCH:
        return settings.slots or 1
    model_bytes = model_path.stat().st_size if model_path.exists() else 0
    needed = int(1.5 * model_bytes) + SECOND_SLOT_FREE_BYTES
    return 2 if psutil.virtual_memory().available >= needed else 1


def create_engine(
    settings: Settings,
    *,
    model_id: str,
    model_path: Path,
    context_tokens: int,
    socket_folder: Path,
    adapters: tuple[AdapterLease, ...] = (),
    states: tuple[Path, str] | None = None,
    checks: LoadChecks | None = None,
) -> Engine:
    """The engine for this model, not started yet.

    ``socket_folder`` is one only this user can enter; ``adapters`` are those that are likely to be asked for;
    ``states`` is the folder for saved KV states with the model's sha256, None where none are to be saved; ``checks``
    are asked before files are loaded. Raises InvalidInput where the engine is not installed.
    """
    if engine_id(settings) == TORCH:
        from peft_daemon.engines.torch.engine import TorchEngine, TorchOptions, require_installed  # noqa: PLC0415  (one or the other)

        require_installed()
        return TorchEngine(
            TorchOptions(
                model_id=model_id,
                model_path=model_path,
                precision=settings.torch_precision,
                context_tokens=context_tokens,
                threads=settings.threads,
                wait_policy=settings.wait_policy,
                batch_tokens=settings.batch_tokens,
                max_loaded_adapters=settings.max_loaded_adapters,
                checks=checks,
            )
        )
    from peft_daemon.engines.llamacpp.engine import (  # noqa: PLC0415  (one or the other)
        LlamaCppEngine,
        LlamaCppOptions,
        SavedStatesOptions,
    )

    limit_bytes = settings.kv_states_mb * 1_000_000
    return LlamaCppEngine(
        LlamaCppOptions(
            model_id=model_id,
            model_path=model_path,
            socket_folder=socket_folder,
            context_tokens=context_tokens,
            slots=slot_count(settings, model_path),
            threads=settings.threads,
            wait_policy=settings.wait_policy,
            batch_tokens=settings.batch_tokens,
            max_loaded_adapters=settings.max_loaded_adapters,
            adapters=adapters,
            speculation=uses_speculation(settings),
            states=SavedStatesOptions(states[0], limit_bytes, states[1]) if states and limit_bytes else None,
            checks=checks,
        )
    )
