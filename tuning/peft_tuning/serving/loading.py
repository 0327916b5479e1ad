"""The base model of the torch engine: where it runs and how its weights are held."""

from __future__ import annotations

from pathlib import Path

import torch

from peft_daemon.engines.torch_messages import ChildConfig
from peft_tuning.base_model import LoadedBase, Precision, load_gguf, load_hub_folder


def load(config: ChildConfig) -> LoadedBase:
    """Load it; raises NotFound or InvalidInput."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if config.precision == "auto":
        precision = Precision.NF4 if device == "cuda" else Precision.FLOAT32
    else:
        precision = Precision(config.precision)
    path = Path(config.model)
    return (load_hub_folder if path.is_dir() else load_gguf)(path, precision, device=device)
