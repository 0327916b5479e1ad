"""The files of a PEFT folder, brought into a private folder before anything looks inside them.

Only the adapter's three files are taken, bounded in size. Whatever else a trainer leaves beside them (optimizer state,
training arguments) is neither read nor copied; weights that are only there as a pickle are refused. What the files say
is checked in ``lora_config``, ``tensors`` and ``validation``.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from peft_core.errors import InvalidInput, NotFound, TooLarge

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
RECORD = "peft-daemon.json"
PICKLED_WEIGHTS = "adapter_model.bin"

LIMITS = {CONFIG: 1_000_000, WEIGHTS: 1 << 30, RECORD: 1_000_000}
"""Largest accepted size in bytes. A rank-64 adapter of all layers of a 7B model has 0.6 GB in float32."""

PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"})
"""Suffixes of formats that can run code when loaded."""

TO_SAFETENSORS = (
    'python -c "import torch, safetensors.torch as s; '
    f"s.save_file({{k: v.contiguous() for k, v in torch.load('{PICKLED_WEIGHTS}', weights_only=True).items()}}, "
    f"'{WEIGHTS}')\""
)
"""A command that converts pickled weights in the current folder without running what they hold."""

_CHUNK = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def take(source: Path, destination: Path) -> list[str]:
    """Copy the adapter's files from ``source`` into the existing folder ``destination``.

    Returns a sentence for each thing that was found elsewhere or ignored. ``source`` may also be the folder around the
    adapter's, as trainers and PEFT's named adapters have it, if there is only one in it. Raises NotFound when the
    folder or a file is missing, TooLarge above a limit, InvalidInput for pickled weights, several adapters, a link that
    leads out of the folder, or something that is no regular file.
    """
    if not source.is_dir():
        raise NotFound(f"no folder {source}", fix=f"Give the folder that holds {CONFIG} and {WEIGHTS}")
    folder = _adapter_folder(source)
    notices = [f"The adapter is in {folder}"] if folder != source else []
    pickled = (folder / PICKLED_WEIGHTS).exists()
    if not (folder / WEIGHTS).exists():
        if pickled:
            raise InvalidInput(
                f"{folder / PICKLED_WEIGHTS} is a pickle",
                why="such files can run code when they are loaded, so weights are read from safetensors only",
                fix=f"Save the adapter again with a current PEFT, or convert it: in {folder}, with torch and "
                f"safetensors installed, run\n{TO_SAFETENSORS}",
            )
        raise NotFound(f"{folder} holds no {WEIGHTS}", fix="Give a folder written by PEFT's `save_pretrained`")
    if pickled:
        notices.append(f"Ignored {PICKLED_WEIGHTS}: the weights are those of {WEIGHTS} beside it")
    for name, limit in LIMITS.items():
        if os.path.lexists(folder / name):
            _copy(folder, name, destination, limit)
    return notices


def _adapter_folder(source: Path) -> Path:
    """``source``, or the one folder in it that holds an adapter's config."""
    if (source / CONFIG).exists():
        return source
    found = [entry for entry in sorted(source.iterdir()) if not entry.is_symlink() and (entry / CONFIG).is_file()]
    if not found:
        whole = any((source / name).exists() for name in ("model.safetensors", "pytorch_model.bin"))
        raise NotFound(
            f"{source} holds no {CONFIG}",
            why="it holds a whole model, which is no adapter" if whole else "",
            fix="Give a folder written by PEFT's `save_pretrained`",
        )
    if len(found) > 1:
        best = max(found, key=lambda entry: int(match[1]) if (match := _CHECKPOINT.fullmatch(entry.name)) else -1)
        raise InvalidInput(
            f"{source} holds {len(found)} adapters",
            why=f"they are in {', '.join(entry.name for entry in found[:10])}{' and more' if len(found) > 10 else ''}",
            fix=f"Give the folder of one of them, for example {best}",
        )
    return found[0]


def _copy(source: Path, name: str, destination: Path, limit: int) -> None:
    try:
        real = (source / name).resolve()
    except (OSError, RuntimeError) as error:  # a link to itself
        raise InvalidInput(f"cannot read {source / name}", why=str(error), fix="Check that file") from None
    if not real.is_relative_to(source.resolve()):
        raise InvalidInput(
            f"{source / name} is a link that leads out of its folder",
            why=f"it points to {real}",
            fix="Copy the folder with its links followed (`cp -rL`) and import the copy",
        )
    # A named pipe put in the file's place must not block here: O_NONBLOCK, then look at what was opened.
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        handle = os.open(real, flags)
    except OSError as error:
        raise InvalidInput(f"cannot read {source / name}", why=error.strerror or "", fix="Check that file") from None
    info = os.fstat(handle)
    if not stat.S_ISREG(info.st_mode):
        os.close(handle)
        raise InvalidInput(f"{source / name} is not a regular file", fix="Give a folder of plain files")
    with os.fdopen(handle, "rb") as file, os.fdopen(os.open(destination / name, _NEW, 0o600), "wb") as copy:
        taken = 0
        while chunk := file.read(_CHUNK):
            taken += len(chunk)
            if max(taken, info.st_size) > limit:
                raise TooLarge(
                    f"{source / name} has {max(taken, info.st_size):,} bytes",
                    why=f"the limit is {limit:,}",
                    fix="Train with a lower rank or fewer target modules",
                )
            copy.write(chunk)
