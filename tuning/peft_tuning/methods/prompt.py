"""Prompt tuning: learned embeddings before the input (Lester et al., arXiv 2104.08691), begun as a sentence's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch

from peft_core.errors import InvalidInput
from peft_daemon.engines.torch.base_model import LoadedBase
from peft_daemon.engines.torch.tokenizer import LiteralTokenizer
from peft_tuning.methods.base import Calibration, MethodOptions
from peft_tuning.methods.peft_method import PeftMethod

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel, PromptTuningConfig

VIRTUAL_TOKENS = 20
INIT_TEXT = "Generate Python code given a natural language instruction."


@dataclass(frozen=True, kw_only=True)
class PromptMethod(PeftMethod):
    """Prompt tuning with text initialization."""

    allowed: ClassVar[frozenset[str]] = frozenset({"virtual_tokens", "init_text"})
    understood: ClassVar[frozenset[str]] = frozenset(
        {"num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"}
    )

    def config_type(self) -> type[PeftConfig]:
        """PEFT's ``PromptTuningConfig``."""
        from peft import PromptTuningConfig  # noqa: PLC0415  (seconds)

        return PromptTuningConfig

    def config(self, base: LoadedBase, options: MethodOptions) -> PromptTuningConfig:
        """Begun at random: PEFT's own text initialization would look for a tokenizer by name."""
        from peft import PromptTuningConfig  # noqa: PLC0415  (seconds)

        return PromptTuningConfig(
            num_virtual_tokens=options.virtual_tokens or VIRTUAL_TOKENS,
            task_type="SEQ_2_SEQ_LM" if base.family.encoder_decoder else "CAUSAL_LM",
        )

    def initialize(
        self, model: PeftModel, base: LoadedBase, options: MethodOptions, calibration: Calibration | None
    ) -> None:
        """Begin as the embeddings of the text's tokens, over and over until all are filled."""
        tokens = LiteralTokenizer(base.tokenizer).encode_text(
            INIT_TEXT if options.init_text is None else options.init_text
        )
        if not tokens:
            raise InvalidInput("the text that virtual tokens begin as is empty", fix="Leave out `--init-text`")
        encoders, inputs = cast("Any", model.prompt_encoder), cast("Any", base.model.get_input_embeddings())
        weight: torch.Tensor = encoders["default"].embedding.weight
        with torch.no_grad():
            known: torch.Tensor = inputs.weight
            ids = torch.tensor(tokens, device=known.device).repeat(len(weight) // len(tokens) + 1)[: len(weight)]
            weight.copy_(known[ids])


PROMPT = PromptMethod(id="prompt", learning_rate=3e-3)
