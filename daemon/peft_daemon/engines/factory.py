"""Create the engine that the settings choose."""

from __future__ import annotations

import os
from pathlib import Path

from peft_core.errors import InvalidInput
from peft_core.memory import read_memory
from peft_core.processes import find_program
from peft_core.settings import AUTO, WHEEL, Settings
from peft_core.status_types import LLAMACPP, TORCH, UPSTREAM
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines.base import Engine, EngineSpeed, LoadChecks
from peft_daemon.engines.limits import step_tokens
from peft_daemon.models.catalogue import ModelEntry

SECOND_SLOT_FREE_BYTES = 1 << 30
"""Memory that must be free for a second slot, besides one and a half times the model."""


SPECULATION_BY_DEFAULT = True
"""Measured on two cores (docs/engines.md): faster where code repeats, not slower elsewhere."""


def engine_id(settings: Settings, model: ModelEntry) -> str:
    """Return the id of the engine that runs ``model`` on this machine.

    ``auto`` is llama.cpp, the faster one on a CPU, for a GGUF file, and torch for a folder. With ``upstream`` it is the
    same: this engine steps in for the server, and measurements, tuning and evaluations never send code away. Raises
    InvalidInput for a folder that llama.cpp shall run.
    """
    return _engine_id(settings, model.id, is_folder=model.folder is not None)


def _engine_id(settings: Settings, model_id: str, *, is_folder: bool) -> str:
    if is_folder and settings.engine == LLAMACPP:
        raise InvalidInput(
            f"llama.cpp cannot run '{model_id}'",
            why="it is a folder in transformers' layout, and `engine` is llamacpp",
            fix="Set `engine` to auto, or choose a model in a GGUF file",
        )
    return TORCH if is_folder or settings.engine == TORCH else LLAMACPP


def uses_speculation(settings: Settings) -> bool:
    """Whether llama.cpp drafts the continuation from repetitions in the prompt."""
    return SPECULATION_BY_DEFAULT if settings.speculation == "auto" else settings.speculation == "on"


def server_program(settings: Settings) -> Path | None:
    """Return the ``llama-server`` that the settings name; None for the wheel, and for ``auto``, which names none.

    Raises InvalidInput if it is gone. ``llamacpp.choice`` says what ``auto`` takes.
    """
    named = settings.llama_server
    if named in (WHEEL, AUTO):
        return None
    found = find_program(named) if os.sep not in named else str(Path(named).expanduser())
    if found is None or not os.access(found, os.X_OK) or not Path(found).is_file():
        raise InvalidInput(
            f"there is no program '{named}'",
            why="`llama_server` names it",
            fix="Correct it in the file that `peft-daemon config --path` shows, or set it to auto",
        )
    return Path(found).absolute()


def speed_key(settings: Settings, model: ModelEntry, file_sha256: str, program: Path | None = None) -> str:
    """Return what an engine's speed depends on: who computes (``program``; None: the wheel), how, with which model."""
    if settings.engine == UPSTREAM:
        return f"{UPSTREAM} {settings.upstream_url} {settings.upstream_model}"
    engine = engine_id(settings, model)
    computes = str(program or WHEEL) if engine == LLAMACPP else settings.torch_precision
    layers = "" if settings.gpu_layers < 0 else f" {settings.gpu_layers} layers"
    return f"{engine} {computes}{layers} {settings.threads} threads {file_sha256[:16]}"


def slot_count(settings: Settings, model_path: Path) -> int:
    """Return how many requests are decoded at a time: the setting, else two if memory allows.

    With two slots, two editor windows do not evict each other's documents. A slot's KV state of 4,096 tokens takes a
    tenth of a small model. Torch decodes one request at a time.
    """
    if settings.slots or settings.engine == TORCH or model_path.is_dir():
        return settings.slots or 1
    model_bytes = model_path.stat().st_size if model_path.exists() else 0
    needed = int(1.5 * model_bytes) + SECOND_SLOT_FREE_BYTES
    return 2 if read_memory().available >= needed else 1


def create_engine(
    settings: Settings,
    *,
    model_id: str,
    model_path: Path,
    context_tokens: int,
    socket_folder: Path,
    adapters: tuple[AdapterLease, ...] = (),
    adapters_folder: Path | None = None,
    states: tuple[Path, str] | None = None,
    checks: LoadChecks | None = None,
    speed: EngineSpeed = EngineSpeed(),
    measured: Path | None = None,
    problem: str = "",
) -> Engine:
    """Create the engine for this model, a GGUF file or a folder, without starting it.

    Only this user may enter ``socket_folder``. ``adapters`` are loaded at the start where the engine can; others that
    requests name lie below ``adapters_folder``, which has to be there (None: they name no others). ``states`` is the
    folder for saved KV states and the model's sha256; None saves none. ``checks`` are called before files are loaded.
    ``speed`` is what is known of it, which decides the length of its steps. ``measured`` is the ``llama-server`` to run
    where the settings leave it open; if it cannot start, the wheel does, and the status says so. ``problem`` is what it
    says from the beginning. Raises InvalidInput where the engine is not installed or cannot run the model.
    """
    if _engine_id(settings, model_id, is_folder=model_path.is_dir()) == TORCH:
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
                batch_tokens=step_tokens(settings, speed),
                max_loaded_adapters=settings.max_loaded_adapters,
                adapter_folders=(*(each.path for each in adapters), *filter(None, (adapters_folder,))),
                confined=settings.confine_engines != "off",
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
            batch_tokens=step_tokens(settings, speed),
            max_loaded_adapters=settings.max_loaded_adapters,
            adapters=adapters,
            speculation=uses_speculation(settings),
            program=server_program(settings) or measured,
            wheel_steps_in=measured is not None,
            program_problem=problem,
            gpu_layers=settings.gpu_layers,
            flash_attention=settings.flash_attention,
            states=SavedStatesOptions(states[0], limit_bytes, states[1]) if states and limit_bytes else None,
            confined=settings.confine_engines != "off",
            checks=checks,
        )
    )
