"""The seven ways to tune, by id. One module each; the default is ``lora`` on a CPU and ``qlora-4bit`` on CUDA."""

from __future__ import annotations

from collections.abc import Mapping

from peft_core.errors import NotFound
from peft_tuning.methods.base import Method
from peft_tuning.methods.full import FULL
from peft_tuning.methods.ia3 import IA3
from peft_tuning.methods.lora import LORA, QLORA_4BIT, QLORA_8BIT
from peft_tuning.methods.virtual_tokens import PREFIX, PROMPT

METHODS: Mapping[str, Method] = {
    method.id: method for method in (LORA, QLORA_4BIT, QLORA_8BIT, IA3, PROMPT, PREFIX, FULL)
}


def get(method_id: str) -> Method:
    """The method with this id; raises NotFound naming the known ids."""
    if method_id not in METHODS:
        raise NotFound(
            f"no tuning method '{method_id}'",
            why=f"known methods: {', '.join(METHODS)}",
            fix="Choose one with `--method`",
        )
    return METHODS[method_id]


def default_for(device: str) -> Method:
    """LoRA on the weights that are served, or, where memory is dear and 4-bit arithmetic fast (CUDA), QLoRA."""
    return QLORA_4BIT if device.startswith("cuda") else LORA
