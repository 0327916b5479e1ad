"""QLoRA: LoRA beside a base in 4-bit normal floats with double quantization (Dettmers et al., arXiv 2305.14314)."""

from __future__ import annotations

from peft_daemon.engines.torch.base_model import Precision
from peft_tuning.methods.lora import LoraMethod

QLORA_4BIT = LoraMethod(id="qlora-4bit", learning_rate=3e-4, quantized=Precision.NF4)
