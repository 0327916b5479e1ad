"""The two files of a PEFT folder, as every method but full fine-tuning writes and reads them.

A config is data: what is not understood has to be at its default, and nothing that names code or another place to load
from is accepted. Weights are safetensors or refused. Does not copy untrusted folders (``adapters.peft_files`` does).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from safetensors.torch import save_file

from peft_core.errors import InvalidInput, NotFound
from peft_daemon.adapters.peft_files import CONFIG, LIMITS, PICKLES, WEIGHTS

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor

_INFORMATION = {"peft_version", "base_model_name_or_path", "revision", "inference_mode", "task_type", "peft_type"}
_PLAIN = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


def write(folder: Path, config: PeftConfig, state: Mapping[str, Tensor]) -> None:
    """Write config and weights into an existing folder."""
    for_inference = dataclasses.replace(config)
    for_inference.inference_mode = True
    for_inference.save_pretrained(str(folder))
    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def check(folder: Path, kind: type[PeftConfig], understood: frozenset[str]) -> None:
    """Refuse a folder that is not an adapter of this kind and of nothing else; raises NotFound or InvalidInput."""
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if entry.suffix.lower() in PICKLES:
            raise InvalidInput(
                f"{entry} is a pickle or may be loaded as one",
                why="such files run code when they are loaded",
                fix="Keep only the safetensors file",
            )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise NotFound(f"{folder} holds no {name}", fix="Give a folder that `peft-daemon tune` or PEFT wrote")
        if (folder / name).stat().st_size > LIMITS[name]:
            raise InvalidInput(f"{folder / name} is larger than {LIMITS[name]:,} bytes")
    values = _read(folder / CONFIG)
    default: Any = kind()
    if values.get("peft_type") != default.peft_type:
        raise InvalidInput(
            f"{folder} holds an adapter of the type {values.get('peft_type')!r}",
            why=f"this method's adapters are of the type '{default.peft_type.value}'",
        )
    for key, value in values.items():
        if key in understood:
            _check_names(key, value)
        elif key not in _INFORMATION and (not hasattr(default, key) or value not in _off(getattr(default, key))):
            raise InvalidInput(
                f"{CONFIG} sets '{key}'",
                why="it may change what the adapter computes, or load something else, and is not understood here",
                fix="Train without it, or merge the adapter into its base with the tool that made it",
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is not a JSON object", why=str(error), fix="Save the adapter again") from None


def _off(default: object) -> tuple[object, ...]:
    """The values that say the same as the default does."""
    return (default, None) if default else (default, None, False, [], {})


def _check_names(key: str, value: object) -> None:
    """PEFT reads module names as regular expressions, which a file must not be free to choose."""
    if key not in {"target_modules", "feedforward_modules", "exclude_modules", "rank_pattern", "alpha_pattern"}:
        return
    if value is not None and not isinstance(value, list | dict):
        raise InvalidInput(f"{key} in {CONFIG} is {value!r}", why="it has to list plain module names")
    for name in value or ():
        if not isinstance(name, str) or not _PLAIN.fullmatch(name):
            raise InvalidInput(f"{key} in {CONFIG} has the name {name!r}", why="it is no plain module name")
