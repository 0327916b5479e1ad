"""LoRA beside a base held in 8-bit integers (LLM.int8(), Dettmers et al., arXiv 2208.07339)."""

from __future__ import annotations

from peft_daemon.engines.torch.base_model import Precision
from peft_tuning.methods.lora import LoraMethod

QLORA_8BIT = LoraMethod(id="qlora-8bit", learning_rate=3e-4, quantized=Precision.INT8)
