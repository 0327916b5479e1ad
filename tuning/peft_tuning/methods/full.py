"""Full fine-tuning: all weights, in float32, saved as a model of its own in transformers' layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import safe_open
from torch import nn

from peft_core.errors import InvalidInput, NotFound
from peft_daemon.engines.torch.base_model import LoadedBase, Precision
from peft_daemon.engines.torch.families import Family
from peft_daemon.models.hub_folder import PICKLE_SUFFIXES
from peft_tuning.methods.base import Calibration, MethodOptions, count_trainable, refuse_family, refuse_options


@dataclass(frozen=True, kw_only=True)
class FullMethod:
    """Full fine-tuning; it has no options."""

    id: str
    learning_rate: float
    makes_adapter: bool = False

    def precision_on(self, device: str) -> Precision:
        """Return float32: small updates would vanish in bfloat16, which has eight significant bits."""
        return Precision.FLOAT32

    def needs_calibration(self, options: MethodOptions) -> bool:
        """Return False."""
        return False

    def check(self, family: Family, options: MethodOptions) -> None:
        """Refuse what cannot work; raises InvalidInput."""
        refuse_family(self.id, family)
        refuse_options(self.id, options, frozenset())

    def apply(
        self, base: LoadedBase, options: MethodOptions, seed: int, *, calibration: Calibration | None = None
    ) -> nn.Module:
        """Return the base itself, with all parameters trainable; the seed is not used."""
        self.check(base.family, options)
        if base.precision.quantized:
            raise InvalidInput(
                f"weights held as {base.precision} cannot be trained", fix="Choose `--method qlora-4bit`"
            )
        model: nn.Module = base.model.requires_grad_(True)
        return model.train()

    def trainable_parameters(self, model: nn.Module) -> int:
        """Return the number of trained parameters, which are all."""
        return count_trainable(model)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write ``config.json`` and safetensors, in shards if they are large."""
        tuned: Any = model
        tuned.save_pretrained(str(folder))

    def load(self, base: LoadedBase, folder: Path) -> nn.Module:
        """Return the base with the folder's weights instead of its own."""
        _check(base, folder)
        waiting = dict(base.model.named_parameters())
        with torch.no_grad():
            for file in sorted(folder.glob("*.safetensors")):
                with safe_open(file, framework="pt") as shard:
                    for name in shard.keys():  # noqa: SIM118  (no mapping)
                        _copy(shard.get_tensor(name), waiting.pop(name, None), name, folder)
        if waiting:
            raise InvalidInput(f"{folder} lacks {', '.join(sorted(waiting)[:3])}", fix="Train it again")
        model: nn.Module = base.model
        return model.eval()


def _check(base: LoadedBase, folder: Path) -> None:
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise NotFound(f"{folder} holds no model", fix="Give a folder that `peft-daemon tune --method full` wrote")
    for entry in sorted(folder.iterdir()):
        if entry.suffix.lower() in PICKLE_SUFFIXES:
            raise InvalidInput(f"{entry} is a pickle", why="such files run code when they are loaded")
    if base.precision.quantized:
        raise InvalidInput(f"a fully tuned model cannot be loaded into weights held as {base.precision}")
    kind = msgspec.json.decode((folder / "config.json").read_bytes(), type=dict[str, object]).get("model_type")
    if kind not in base.family.model_types:
        raise InvalidInput(f"{folder} holds a {kind} model", why=f"the base is a {base.family.id} model")


def _copy(tensor: torch.Tensor, target: torch.Tensor | None, name: str, folder: Path) -> None:
    if target is None or target.shape != tensor.shape:
        raise InvalidInput(f"{folder} holds {name} {list(tensor.shape)}", why="the base has no such parameter")
    target.copy_(tensor)


FULL = FullMethod(id="full", learning_rate=5e-5)
