"""A PEFT folder with its weights in half precision: half the bytes to hand on."""

from __future__ import annotations

from pathlib import Path

from peft_core.errors import InvalidInput
from peft_daemon.adapters.peft_files import WEIGHTS
from peft_daemon.adapters.tensors import read_tensors


def round_to_float16(folder: Path) -> None:
    """Rewrite the weights in ``folder`` as float16; raises InvalidInput when a number is too large for it."""
    import numpy as np  # noqa: PLC0415  (the daemon's request path must not load it)
    from safetensors.numpy import save_file  # noqa: PLC0415

    rounded = {}
    for name, tensor in read_tensors(folder / WEIGHTS).items():
        with np.errstate(over="ignore"):
            values = tensor.to_float32().astype(np.float16)
        if not np.isfinite(values).all():
            raise InvalidInput(
                f"tensor '{name}' holds numbers beyond 65,504",
                why="float16 has none larger",
                fix="Export it with `--format peft`",
            )
        rounded[name] = values
    save_file(rounded, folder / WEIGHTS, metadata={"format": "pt"})
