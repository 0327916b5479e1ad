"""Adapters between two: the one that a run began with, and the one that it made.

Fine-tuning forgets as it learns; a straight line between the weights before and after it has points that keep most of
both (Wortsman et al., WiSE-FT, arXiv 2109.01903). The line is drawn between the low-rank factors, so each point is an
adapter of the same rank: near the beginning, which a short run stays, it is the line between the products.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from peft_core.files import write_atomic
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.adapters.peft_files import CONFIG_FILE, WEIGHTS_FILE
from peft_tuning.start import factors


def mix(start: AdapterLease, made: Path, share: float, folder: Path) -> None:
    """Write into ``folder`` the adapter that is ``share`` (0 to 1) of the way from ``start`` to the one in ``made``.

    ``start`` is a LoRA at its scale, and ``made`` has the same modules and rank at scale 1; ``folder`` may be ``made``.
    Raises KeyError for a tensor that only one of them has.
    """
    before, after = factors(start), load_file(made / WEIGHTS_FILE)
    if before.keys() != after.keys():
        raise KeyError(f"tensors of one adapter alone: {sorted(before.keys() ^ after.keys())[:3]}")
    folder.mkdir(parents=True, exist_ok=True)
    mixed = {name: torch.lerp(before[name], own.float(), share).to(own.dtype) for name, own in after.items()}
    # In memory until it is whole: the file that is replaced may be the one that was read.
    write_atomic(folder / WEIGHTS_FILE, save(mixed, metadata={"format": "pt"}))
    if folder != made:
        shutil.copyfile(made / CONFIG_FILE, folder / CONFIG_FILE)
