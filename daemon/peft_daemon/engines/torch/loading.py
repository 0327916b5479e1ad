"""The base model of the torch engine: where it runs and how its weights are held."""

from __future__ import annotations

from pathlib import Path

import torch

from peft_daemon.engines.torch.base_model import LoadedBase, Precision, load_gguf, load_hub_folder


def load(path: Path, precision: str) -> LoadedBase:
    """A GGUF file, or a folder in transformers' layout; ``auto`` is nf4 on CUDA and float32 on a CPU.

    Raises NotFound or InvalidInput.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    best = Precision.NF4 if device == "cuda" else Precision.FLOAT32
    held = best if precision == "auto" else Precision(precision)
    return (load_hub_folder if path.is_dir() else load_gguf)(path, held, device=device)
