"""Linear layers held in 4 or 8 bits by bitsandbytes, replaced one module at a time from dense weights.

The output head stays dense, as in transformers: rounding there falls on the probabilities themselves. Quantized layers
are frozen. Does not load models.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

    from peft_daemon.engines.torch.base_model import Precision

OUTLIERS = 6.0
"""Inputs above it are computed unrounded (LLM.int8(), arXiv 2208.07339, section 3.2)."""


def compute_type(device: str) -> torch.dtype:
    """What quantized layers compute in. A CPU computes bfloat16 several times slower than float32."""
    return torch.bfloat16 if device.startswith("cuda") else torch.float32


def config(precision: Precision, device: str) -> BitsAndBytesConfig | None:
    """The same for transformers' loader; None for a dense precision."""
    from transformers import BitsAndBytesConfig  # noqa: PLC0415  (seconds)

    if precision == "nf4":
        return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_type(device),
        )
    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=OUTLIERS)  # type: ignore[no-untyped-call]
    return None


def quantized_linear(weight: torch.Tensor, precision: Precision, device: str) -> nn.Module:
    """A frozen linear layer without bias that holds ``weight`` (outputs, inputs) as ``precision`` says."""
    from bitsandbytes.nn import modules as bnb  # noqa: PLC0415  (seconds)

    outputs, inputs = weight.shape
    empty: dict[str, Any] = {"bias": False, "device": "meta"}
    held: Any
    layer: Any
    if precision == "nf4":
        empty |= {"compute_dtype": compute_type(device), "quant_type": "nf4"}
        layer = bnb.Linear4bit(inputs, outputs, **empty)  # type: ignore[no-untyped-call]
        held = bnb.Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True, module=layer)
    else:
        layer = bnb.Linear8bitLt(inputs, outputs, has_fp16_weights=False, threshold=OUTLIERS, **empty)
        held = bnb.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    layer.weight = held.to(device)
    quantized: nn.Module = layer.eval()
    return quantized


def replaceable(model: Any, name: str) -> bool:
    """Whether the module of this name is a linear layer that can be quantized: neither the output head nor one that
    the architecture wants in float32 (``wo`` of T5)."""
    module = model.get_submodule(name)
    kept = set(model._keep_in_fp32_modules or ()) & set(name.split("."))
    return type(module) is nn.Linear and module is not model.get_output_embeddings() and not kept


def finish(model: Any, precision: Precision) -> None:
    """Say where peft and transformers look that the model is quantized, and keep its numbers what they are."""
    from bitsandbytes.nn import modules as bnb  # noqa: PLC0415  (seconds)
    from transformers.utils.quantization_config import QuantizationMethod  # noqa: PLC0415  (seconds)

    model.is_loaded_in_4bit, model.is_loaded_in_8bit = precision == "nf4", precision == "int8"
    model.quantization_method = QuantizationMethod.BITS_AND_BYTES
    for module in model.modules():
        if isinstance(module, bnb.Linear4bit):
            # On a CPU with AVX512-BF16, bitsandbytes repacks the weights at the first evaluation: computing in
            # bfloat16 from then on, and rounded once more when it goes back. Training on would be on other weights.
            module.support_avx512bf16_for_cpu = False
    # On a CPU it says at every layer of every step that inputs are cast.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
