"""The files of a PEFT folder, brought into a private folder before anything looks inside them.

Only the adapter's three files are taken, bounded in size; a folder that also holds pickles is refused, because other
tools would load those. What the files say is checked in ``lora_config``, ``tensors`` and ``validation``.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from peft_daemon.errors import InvalidInput, NotFound, TooLarge

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
RECORD = "peft-daemon.json"

LIMITS = {CONFIG: 1_000_000, WEIGHTS: 1 << 30, RECORD: 1_000_000}
"""Largest accepted size in bytes. A rank-64 adapter of all layers of a 7B model has 0.6 GB in float32."""

PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"})
"""Suffixes of formats that can run code when loaded."""

_CHUNK = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def take(source: Path, destination: Path) -> None:
    """Copy the adapter's files from ``source`` into the existing folder ``destination``.

    Raises NotFound when the folder or a file is missing, TooLarge above a limit, InvalidInput for a pickle, a link
    that leads out of the folder, or something that is no regular file.
    """
    if not source.is_dir():
        raise NotFound(f"no folder {source}", fix=f"Give the folder that holds {CONFIG} and {WEIGHTS}")
    _refuse_pickles(source)
    for name in (CONFIG, WEIGHTS):
        if not (source / name).exists():
            raise NotFound(f"{source} holds no {name}", fix="Give a folder written by PEFT's `save_pretrained`")
    for name, limit in LIMITS.items():
        if os.path.lexists(source / name):
            _copy(source, name, destination, limit)


def _refuse_pickles(folder: Path) -> None:
    """Raise InvalidInput naming a file of ``folder`` in a format that can run code."""
    for entry in sorted(folder.iterdir()):
        if entry.suffix.lower() in PICKLES:
            raise InvalidInput(
                f"{entry} is a pickle or may be loaded as one",
                why="such files run code when they are loaded",
                fix="Keep only the safetensors file: save the adapter again with `safe_serialization=True`, or "
                "delete that file",
            )


def _copy(source: Path, name: str, destination: Path, limit: int) -> None:
    real = (source / name).resolve()
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
