"""What the methods that PEFT implements have in common: checks, seeding, saving, loading. A method adds its config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import torch
from torch import nn

from peft_core.errors import InvalidInput
from peft_daemon.engines.torch.base_model import LoadedBase, Precision
from peft_daemon.engines.torch.families import Family
from peft_tuning.methods import peft_folder
from peft_tuning.methods.base import Calibration, MethodOptions

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

ALWAYS_ALLOWED = frozenset({"gradient_checkpointing"})


def refuse_options(method_id: str, options: MethodOptions, allowed: frozenset[str]) -> None:
    """Raise InvalidInput for an option that is given and that the method does not have."""
    for name, value in msgspec.structs.asdict(options).items():
        if value is not None and name not in allowed | ALWAYS_ALLOWED:
            raise InvalidInput(
                f"'{name}' is no option of {method_id}",
                why=f"it has {', '.join(sorted(allowed)) or 'none'}",
                fix="Leave it out, or choose another `--method`",
            )


def refuse_family(method_id: str, family: Family) -> None:
    """Raise InvalidInput for a family that cannot be tuned this way."""
    if (reason := family.unsupported.get(method_id)) is not None:
        raise InvalidInput(
            f"{family.id} models cannot be tuned with {method_id}", why=reason, fix="Choose another `--method`"
        )


def count_trainable(model: nn.Module) -> int:
    """How many numbers of a model are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@dataclass(frozen=True, kw_only=True)
class PeftMethod:
    """Base of the methods: subclasses build the PEFT config and name their options."""

    id: str
    learning_rate: float
    quantized: Precision | None = None
    """How the base has to be held; None for any dense form."""
    makes_adapter: bool = True

    allowed: ClassVar[frozenset[str]] = frozenset()
    """Options the method has."""
    understood: ClassVar[frozenset[str]] = frozenset()
    """Keys of ``adapter_config.json`` that may differ from their defaults."""

    def config(self, base: LoadedBase, options: MethodOptions) -> PeftConfig:
        """PEFT's description of the adapter to make."""
        raise NotImplementedError

    def config_type(self) -> type[PeftConfig]:
        """The class of ``config``."""
        raise NotImplementedError

    def precision_on(self, device: str) -> Precision:
        """float32 on a CPU, which computes bfloat16 slowly; bfloat16 elsewhere; quantized where that is the method."""
        return self.quantized or (Precision.FLOAT32 if device.startswith("cpu") else Precision.BFLOAT16)

    def needs_calibration(self, options: MethodOptions) -> bool:
        """Only one initialization of LoRA does."""
        return False

    def check(self, family: Family, options: MethodOptions) -> None:
        """Refuse what cannot work; raises InvalidInput."""
        refuse_family(self.id, family)
        refuse_options(self.id, options, self.allowed)

    def apply(
        self, base: LoadedBase, options: MethodOptions, seed: int, *, calibration: Calibration | None = None
    ) -> nn.Module:
        """The ``PeftModel`` to train; see ``Method.apply``."""
        from peft import get_peft_model  # noqa: PLC0415  (seconds)

        self.check(base.family, options)
        self._check_precision(base)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = get_peft_model(base.model, self.config(base, options))
            self.initialize(model, base, options, calibration)
        return model.train()

    def initialize(
        self, model: PeftModel, base: LoadedBase, options: MethodOptions, calibration: Calibration | None
    ) -> None:
        """Give new weights their first values, where PEFT's own are not the method's."""

    def trainable_parameters(self, model: nn.Module) -> int:
        """How many numbers are trained."""
        return count_trainable(model)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors``."""
        from peft import get_peft_model_state_dict  # noqa: PLC0415  (seconds)

        # Left to itself PEFT would ask the hub whether the vocabulary was resized.
        state = get_peft_model_state_dict(model, save_embedding_layers=False)
        described: Any = model.peft_config
        config, state = self.released(model, described["default"], state)
        peft_folder.write(folder, config, state)

    def released(
        self, model: nn.Module, config: Any, state: dict[str, torch.Tensor]
    ) -> tuple[PeftConfig, Mapping[str, torch.Tensor]]:
        """Config and weights as they fit the base as released, whatever was done to it while training."""
        return config, state

    def load(self, base: LoadedBase, folder: Path) -> nn.Module:
        """The ``PeftModel`` for inference; see ``Method.load``."""
        from peft import PeftModel  # noqa: PLC0415  (seconds)

        peft_folder.check(folder, self.config_type(), self.understood)
        self._check_precision(base)
        with torch.random.fork_rng():
            model = PeftModel.from_pretrained(base.model, str(folder), local_files_only=True)
        return model.eval()

    def _check_precision(self, base: LoadedBase) -> None:
        if base.precision.quantized and base.precision is not self.quantized:
            raise InvalidInput(
                f"{self.id} does not work on a base held as {base.precision}",
                fix="Choose `--method qlora-4bit` or `--method qlora-8bit`",
            )
