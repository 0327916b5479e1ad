"""LoRA: low-rank matrices beside the frozen linear layers (Hu et al., arXiv 2106.09685), with the study's settings.

Variants: DoRA, rank-stabilized scaling, and initializations. Adapters of initializations that take their factors out of
the base's weights (PiSSA, OLoRA) are saved as an ordinary LoRA of twice the rank, so that they fit the original base.
LoftQ, CorDA, LoRA-GA and MiCA are refused, each with its reason.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from peft_core.errors import InvalidInput
from peft_daemon.engines.torch.base_model import LoadedBase, Precision
from peft_daemon.engines.torch.families import Family
from peft_tuning.methods.base import Calibration, MethodOptions, PeftMethod

if TYPE_CHECKING:
    from peft import LoraConfig, PeftConfig, PeftModel

RANK, ALPHA, DROPOUT = 16, 32.0, 0.05

INITIALIZATIONS = {
    "default": "A random, B zero (Kaiming; Microsoft's reference)",
    "gaussian": "A normal, scaled by the rank, B zero",
    "orthogonal": "A and B orthogonal; the rank has to be even",
    "eva": "A from the inputs the layers see in the training data (arXiv 2410.07170)",
    "pissa": "from the largest singular values of the weights (arXiv 2404.02948); also pissa_niter_N, faster",
    "olora": "from the QR decomposition of the weights (arXiv 2406.01775)",
}
"""Values of ``init`` and what they do."""

_REFUSED = {
    "loftq": "it quantizes the base itself, and the adapter would fit only that rounding of it",
    "corda": "it needs covariances collected in a run of their own",
    "lora_ga": "it needs gradients of the dense base collected in a run of their own",
    "mica": "it trains only one of the two factors, which a loader has to know",
}
_DECOMPOSING = re.compile(r"pissa(_niter_[0-9]{1,3})?|olora")


@dataclass(frozen=True, kw_only=True)
class LoraMethod(PeftMethod):
    """LoRA, on a dense or a quantized base."""

    allowed: ClassVar[frozenset[str]] = frozenset({"rank", "alpha", "dropout", "dora", "rslora", "init"})
    understood: ClassVar[frozenset[str]] = frozenset(
        {
            *("target_modules", "exclude_modules", "rank_pattern", "alpha_pattern", "r", "lora_alpha"),
            *("use_rslora", "use_dora", "init_lora_weights", "lora_dropout", "eva_config"),
            *("layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size", "runtime_config"),
        }
    )

    def config_type(self) -> type[PeftConfig]:
        """Return PEFT's ``LoraConfig``."""
        from peft import LoraConfig  # noqa: PLC0415  (seconds)

        return LoraConfig

    def needs_calibration(self, options: MethodOptions) -> bool:
        """Return whether the initialization is EVA, which uses training data."""
        return options.init == "eva"

    def check(self, family: Family, options: MethodOptions) -> None:
        """Refuse what cannot work; raises InvalidInput."""
        super().check(family, options)
        init = options.init or "default"
        if init in _REFUSED:
            raise InvalidInput(f"LoRA cannot begin with {init!r}", why=_REFUSED[init], fix=_choices())
        if init not in INITIALIZATIONS and not _DECOMPOSING.fullmatch(init):
            raise InvalidInput(f"no initialization {init!r}", fix=_choices())
        if _DECOMPOSING.fullmatch(init) and self.quantized is not None:
            raise InvalidInput(
                f"{init!r} does not work with {self.id}",
                why="it takes a part out of the base's weights, which quantized weights cannot give exactly",
                fix="Choose `--method lora`, or another `--init`",
            )
        if _DECOMPOSING.fullmatch(init) and options.dora:
            raise InvalidInput(
                f"{init!r} does not go with DoRA",
                why="the saved difference could not carry DoRA's magnitudes",
                fix="Leave out `--dora`, or choose another `--init`",
            )
        if options.dora and self.quantized is Precision.INT8:
            raise InvalidInput(
                f"DoRA does not work with {self.id}",
                why="bitsandbytes' 8-bit layers lose their scales when DoRA measures the weights",
                fix="Choose `--method qlora-4bit` or `--method lora`, or leave out `--dora`",
            )
        if init == "orthogonal" and self.quantized is not None:
            raise InvalidInput(
                f"'orthogonal' does not work with {self.id}",
                why="PEFT makes its factors in the type of the base's weights, which here are integers",
                fix="Choose `--method lora`, or another `--init`",
            )
        if init == "orthogonal" and (options.rank or RANK) % 2:
            raise InvalidInput("'orthogonal' needs an even rank", fix=f"Type `--rank {(options.rank or RANK) + 1}`")

    def config(self, base: LoadedBase, options: MethodOptions) -> LoraConfig:
        """Return PEFT's config, with the study's settings as defaults."""
        from peft import EvaConfig, LoraConfig  # noqa: PLC0415  (seconds)

        init: Any = options.init or "default"
        alpha: Any = options.alpha or ALPHA  # PEFT declares an int but accepts any number
        return LoraConfig(
            r=options.rank or RANK,
            lora_alpha=alpha,
            lora_dropout=DROPOUT if options.dropout is None else options.dropout,
            use_dora=bool(options.dora),
            use_rslora=bool(options.rslora),
            init_lora_weights=True if init == "default" else init,
            eva_config=EvaConfig() if init == "eva" else None,
            target_modules=list(base.family.lora_targets),
            bias="none",
            task_type="SEQ_2_SEQ_LM" if base.family.encoder_decoder else "CAUSAL_LM",
        )

    def initialize(
        self, model: PeftModel, base: LoadedBase, options: MethodOptions, calibration: Calibration | None
    ) -> None:
        """Run EVA; keep the initial factors of PiSSA and OLoRA, which were taken out of the base."""
        if options.init == "eva":
            from peft import initialize_lora_eva_weights  # noqa: PLC0415  (seconds)

            if calibration is None:
                raise InvalidInput("EVA has no training data", fix="Choose another `--init`")
            initialize_lora_eva_weights(model, dataloader=list(calibration), show_progress_bar=False)
        if options.init and _DECOMPOSING.fullmatch(options.init):
            tuned: Any = model
            tuned.initial_factors = {
                name: parameter.detach().clone()
                for name, parameter in model.named_parameters()
                if ".lora_A." in name or ".lora_B." in name
            }

    def for_original_base(
        self, model: nn.Module, config: Any, state: dict[str, torch.Tensor]
    ) -> tuple[PeftConfig, Mapping[str, torch.Tensor]]:
        """Return PiSSA and OLoRA adapters, B·A − B₀·A₀, as ordinary LoRAs with the factors [A; A₀] and [B, −B₀]."""
        initial: dict[str, torch.Tensor] | None = getattr(model, "initial_factors", None)
        if initial is None:
            return config, state
        joined = {}
        for name, trained in state.items():
            first = initial[name.replace(".weight", ".default.weight")].to(trained.device)
            joined[name] = (
                torch.cat([trained, first], dim=0) if ".lora_A." in name else torch.cat([trained, -first], dim=1)
            )
        growth = sqrt(2) if config.use_rslora else 2
        return (
            dataclasses.replace(config, r=2 * config.r, lora_alpha=growth * config.lora_alpha, init_lora_weights=True),
            joined,
        )


@contextmanager
def in_type_of_base(model: nn.Module) -> Iterator[None]:
    """Have the products of LoRA layers computed in bfloat16 where the base's are; factors and gradients stay float32.

    PEFT converts each layer's input to float32 and its result back, which took a sixth of a step. Does nothing for
    other types of weights, for variants that compute with the factors themselves (DoRA), and with checkpoints of
    gradients, which are computed outside of this context.
    """
    from peft.helpers import disable_input_dtype_casting  # noqa: PLC0415  (seconds)
    from peft.tuners.lora import LoraLayer  # noqa: PLC0415

    layers = [each for each in model.modules() if isinstance(each, LoraLayer)]
    fits = bool(layers) and not getattr(model, "is_gradient_checkpointing", False)
    for layer in layers:
        weight = getattr(layer.get_base_layer(), "weight", None)
        fits = fits and weight is not None and weight.dtype == torch.bfloat16 and not layer.lora_variant
    if not fits:
        yield
        return
    device = next(model.parameters()).device.type
    with torch.autocast(device, dtype=torch.bfloat16), disable_input_dtype_casting(model):
        yield


def _choices() -> str:
    return f"Choose one of {', '.join(INITIALIZATIONS)} with `--init`"


LORA = LoraMethod(id="lora", learning_rate=3e-4)
QLORA_4BIT = LoraMethod(id="qlora-4bit", learning_rate=3e-4, quantized=Precision.NF4)
"""LoRA on a base in 4-bit normal floats with double quantization (Dettmers et al., arXiv 2305.14314)."""
QLORA_8BIT = LoraMethod(id="qlora-8bit", learning_rate=3e-4, quantized=Precision.INT8)
"""LoRA on a base in 8-bit integers (LLM.int8(), Dettmers et al., arXiv 2208.07339)."""
