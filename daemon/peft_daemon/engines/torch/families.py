"""Model families: which modules each tuning method changes, and which methods a family does not support.

Module names are those of transformers 5. The modules of CodeGen, T5 and Llama are those of the study arXiv 2308.10462.
GPT-BigCode, StarCoder2, Qwen2 and Qwen3, which are not in it, follow the same rule: for LoRA attention, or every linear
layer of a block where the study has those; for IA3 keys, values and the feed-forward part. Norms (``q_norm`` and
``k_norm`` of Qwen3) are no linear layers and are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from peft_core.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture: ``model_types`` are the values of ``config.model_type`` that belong to it."""

    id: str
    model_types: tuple[str, ...]
    encoder_decoder: bool = False
    lora_targets: tuple[str, ...]
    ia3_targets: tuple[str, ...]
    """All modules IA3 rescales, the feed-forward ones among them."""
    ia3_feedforward: tuple[str, ...]
    """Those whose input is rescaled instead of their output."""
    unsupported: Mapping[str, str] = field(default_factory=dict)
    """Method id → why this family cannot be tuned with it."""


_LLAMA_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def _llama_like(name: str) -> Family:
    return Family(
        id=name,
        model_types=(name,),
        lora_targets=_LLAMA_LINEAR,
        ia3_targets=_LLAMA_LINEAR,
        ia3_feedforward=("gate_proj", "up_proj", "down_proj"),
    )


FAMILIES: tuple[Family, ...] = (
    _llama_like("qwen2"),
    _llama_like("qwen3"),
    _llama_like("llama"),
    Family(
        id="codegen",
        model_types=("codegen",),
        lora_targets=("qkv_proj",),
        ia3_targets=("qkv_proj", "fc_in", "fc_out"),
        ia3_feedforward=("fc_in", "fc_out"),
    ),
    Family(
        id="gpt_bigcode",
        model_types=("gpt_bigcode",),
        lora_targets=("c_attn", "c_proj", "c_fc"),
        ia3_targets=("c_attn", "mlp.c_proj"),
        ia3_feedforward=("mlp.c_proj",),
    ),
    Family(
        id="starcoder2",
        model_types=("starcoder2",),
        lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"),
        ia3_targets=("q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"),
        ia3_feedforward=("c_fc", "c_proj"),
    ),
    Family(
        id="t5",
        model_types=("t5",),
        encoder_decoder=True,
        lora_targets=("q", "k", "v"),
        ia3_targets=("q", "k", "v", "wi", "wi_0", "wi_1", "wo"),
        ia3_feedforward=("wi", "wi_0", "wi_1", "wo"),
    ),
)


def is_known(model_type: str) -> bool:
    """Whether a ``config.model_type`` belongs to a family."""
    return any(model_type in family.model_types for family in FAMILIES)


def family_of(model_type: str) -> Family:
    """Return the family of a ``config.model_type`` or a GGUF's architecture.

    Raises InvalidInput if unknown.
    """
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.model_types)
    raise InvalidInput(
        f"models of the type {model_type!r} cannot be tuned, or served by the torch engine",
        why=f"known types: {known}",
        fix="Choose another model; `peft-daemon models list` shows those that are here",
    )
