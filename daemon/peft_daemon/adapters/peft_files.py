"""The files of a PEFT folder: copied before their content is read, and the weights read as typed tensors.

Only the adapter's three files are copied, and their sizes are bounded. Other files of a trainer (optimizer state,
training arguments) are ignored; weights that exist only as a pickle are refused. The contents are checked in
``lora_config``, ``lora`` and ``vectors``.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from peft_core.errors import InvalidInput, NotFound, TooLarge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIG_FILE = "adapter_config.json"
MERGE_INSTEAD = "merge it into its base (PEFT's `merge_and_unload`) and add that model: `peft-daemon models add FOLDER`"
"""What helps where an adapter does what no engine here computes."""
WEIGHTS_FILE = "adapter_model.safetensors"
RECORD_FILE = "peft-daemon.json"
PICKLED_WEIGHTS = "adapter_model.bin"

DTYPES = frozenset({"F32", "F16", "BF16"})
"""Accepted number types, as safetensors names them."""
DIGEST_FORMAT = "peft-daemon adapter 1"
"""Part of every content digest, so that digests of another format differ."""

MAX_FILE_BYTES = {CONFIG_FILE: 1_000_000, WEIGHTS_FILE: 1 << 30, RECORD_FILE: 1_000_000}
"""Largest accepted size in bytes. A rank-64 adapter of all layers of a 7B model has 0.6 GB in float32."""

CONVERT_COMMAND = (
    'python -c "import torch, safetensors.torch as s; '
    f"s.save_file({{k: v.contiguous() for k, v in torch.load('{PICKLED_WEIGHTS}', weights_only=True).items()}}, "
    f"'{WEIGHTS_FILE}')\""
)
"""A command that converts pickled weights in the current folder without running code in them."""

_CHUNK = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def copy_adapter_files(source: Path, destination: Path) -> list[str]:
    """Copy the adapter's files from ``source`` into the existing folder ``destination``.

    Returns a sentence for everything that was found elsewhere or ignored. ``source`` may also be the parent of the
    adapter's folder, as trainers and PEFT's named adapters write it, if that holds a single adapter. Raises NotFound
    when the folder or a file is missing, TooLarge above a limit, InvalidInput for pickled weights, several adapters, a
    link that leads out of the folder, or something that is not a regular file.
    """
    if not source.is_dir():
        raise NotFound(f"no folder {source}", fix=f"Give the folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    folder = _find_adapter_folder(source)
    notices = [f"The adapter is in {folder}"] if folder != source else []
    pickled = (folder / PICKLED_WEIGHTS).exists()
    if not (folder / WEIGHTS_FILE).exists():
        if pickled:
            raise InvalidInput(
                f"{folder / PICKLED_WEIGHTS} is a pickle",
                why="such files can run code when they are loaded, so weights are read from safetensors only",
                fix=f"Save the adapter again with a current PEFT, or convert it: in {folder}, with torch and "
                f"safetensors installed, run\n{CONVERT_COMMAND}",
            )
        raise NotFound(f"{folder} holds no {WEIGHTS_FILE}", fix="Give a folder written by PEFT's `save_pretrained`")
    if pickled:
        notices.append(f"Ignored {PICKLED_WEIGHTS}: the weights are those of {WEIGHTS_FILE} beside it")
    for name, limit in MAX_FILE_BYTES.items():
        if os.path.lexists(folder / name):
            _copy_file(folder, name, destination, limit)
    return notices


def _find_adapter_folder(source: Path) -> Path:
    """Return ``source``, or the one folder in it that holds an adapter's config."""
    if (source / CONFIG_FILE).exists():
        return source
    found = [entry for entry in sorted(source.iterdir()) if not entry.is_symlink() and (entry / CONFIG_FILE).is_file()]
    if not found:
        whole = any((source / name).exists() for name in ("model.safetensors", "pytorch_model.bin"))
        raise NotFound(
            f"{source} holds no {CONFIG_FILE}",
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


def _copy_file(source: Path, name: str, destination: Path, limit: int) -> None:
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
    # O_NONBLOCK, then fstat: a named pipe in the file's place must not block the import.
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


@dataclass(frozen=True)
class Tensor:
    """One tensor as stored: safetensors' name of the type, shape, and little-endian bytes in C order."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | bytearray

    def to_float32(self) -> NDArray[np.float32]:
        """Return the exact values: every accepted type is a subset of float32."""
        import numpy as np  # noqa: PLC0415  (the daemon's request path must not load it)

        if self.dtype == "BF16":
            # bfloat16 is the upper half of a float32.
            wide = np.frombuffer(self.data, dtype="<u2").astype("<u4") << np.uint32(16)
            values = wide.view("<f4")
        else:
            values = np.frombuffer(self.data, dtype="<f4" if self.dtype == "F32" else "<f2").astype("<f4")
        return values.reshape(self.shape)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Raises InvalidInput for a damaged file or another number type.
    """
    import safetensors  # noqa: PLC0415  (the daemon's request path must not load it)

    try:
        entries = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise InvalidInput(
            f"{path.name} is not a whole safetensors file", why=str(error), fix="Save the adapter again with PEFT"
        ) from None
    tensors: dict[str, Tensor] = {}
    for name, entry in entries:
        if entry["dtype"] not in DTYPES:
            raise InvalidInput(
                f"tensor '{name}' has the type {entry['dtype']}",
                why=f"adapters are stored as {', '.join(sorted(DTYPES))}",
                fix="Save the adapter in one of these",
            )
        tensors[name] = Tensor(entry["dtype"], tuple(entry["shape"]), entry["data"])
    return tensors


def round_to_float16(folder: Path) -> None:
    """Rewrite the weights in ``folder`` as float16; raises InvalidInput when a number is too large for it."""
    import numpy as np  # noqa: PLC0415  (the daemon's request path must not load it)
    from safetensors.numpy import save_file  # noqa: PLC0415

    rounded = {}
    for name, tensor in read_tensors(folder / WEIGHTS_FILE).items():
        with np.errstate(over="ignore"):
            values = tensor.to_float32().astype(np.float16)
        if not np.isfinite(values).all():
            raise InvalidInput(
                f"tensor '{name}' holds numbers beyond 65,504",
                why="float16 has none larger",
                fix="Export it with `--format peft`",
            )
        rounded[name] = values
    save_file(rounded, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def tensors_digest(kind: str, tensors: Mapping[str, Tensor], base_sha256: str) -> str:
    """Return the content digest of an adapter that is defined by its tensors alone, as hex sha256.

    Hashed are the base's sha256, ``kind`` (PEFT's type), and the names, types, shapes and numbers of all tensors.
    """
    ordered = sorted(tensors.items())
    header = msgspec.json.encode(
        {
            "format": DIGEST_FORMAT,
            "base": base_sha256,
            "kind": kind,
            "tensors": [[name, tensor.dtype, tensor.shape] for name, tensor in ordered],
        },
        order="sorted",
    )
    total = hashlib.sha256(len(header).to_bytes(8, "little") + header)
    for _, tensor in ordered:
        total.update(tensor.data)
    return total.hexdigest()
