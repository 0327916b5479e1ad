"""Several LoRAs as one: their weighted sum, exactly, as a LoRA whose rank is the sum of theirs.

``W + w1 s1 B1 A1 + w2 s2 B2 A2 = W + [w1 s1 B1, w2 s2 B2] [A1; A2]``: nothing is approximated. A module that only some
of them change gets zeros for the others, so that all modules have one rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from peft_core.errors import InvalidInput
from peft_daemon.adapters.manifest import TrainingRecord
from peft_daemon.adapters.peft_files import CONFIG, RECORD, WEIGHTS
from peft_daemon.adapters.validation import LoraAdapter, LoraModule


def combine(parts: Sequence[tuple[LoraAdapter, float]], record: TrainingRecord, folder: Path) -> None:
    """Write the sum of adapters, each times its weight, into the existing ``folder`` in PEFT's layout.

    Raises InvalidInput for a DoRA, whose lengths of rows do not add up.
    """
    import numpy as np  # noqa: PLC0415  (the daemon's request path must not load it)
    from safetensors.numpy import save_file  # noqa: PLC0415

    if any(adapter.config.dora for adapter, _ in parts):
        raise InvalidInput("a DoRA cannot be merged with another adapter", why="it also sets the length of each row")
    modules = [{module.name: module for module in adapter.modules} for adapter, _ in parts]
    ranks = [max(module.rank for module in adapter.modules) for adapter, _ in parts]
    tensors = {}
    for name in sorted({name for each in modules for name in each}):
        shape = next(each[name] for each in modules if name in each)
        a, b = [], []
        for mine, rank, (_, weight) in zip(modules, ranks, parts, strict=True):
            down = np.zeros((rank, shape.a.shape[1]), np.float32)
            up = np.zeros((shape.b.shape[0], rank), np.float32)
            if (module := mine.get(name)) is not None:
                down[: module.rank] = module.a.to_float32()
                up[:, : module.rank] = weight * module.scale * module.b.to_float32()
            a.append(down)
            b.append(up)
        tensors[f"base_model.model.{name}.lora_A.weight"] = np.concatenate(a)
        tensors[f"base_model.model.{name}.lora_B.weight"] = np.concatenate(b, axis=1)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_bytes(msgspec.json.format(msgspec.json.encode(_config(modules, sum(ranks))), indent=2))
    (folder / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2))


def _config(modules: Sequence[dict[str, LoraModule]], rank: int) -> dict[str, object]:
    targets = {name.rpartition(".")[2] for each in modules for name in each}
    # Alpha equal to the rank: the scale is in the factors.
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted(targets),
        "inference_mode": True,
    }
