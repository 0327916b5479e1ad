"""Methods that learn vectors and change no matrices: prompt tuning, prefix tuning and IA3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch

from peft_core.errors import InvalidInput
from peft_daemon.engines.torch.base_model import LoadedBase
from peft_daemon.engines.torch.families import Family
from peft_daemon.engines.torch.tokenizer import LiteralTokenizer
from peft_tuning.methods.base import Calibration, MethodOptions, PeftMethod

if TYPE_CHECKING:
    from peft import IA3Config, PeftConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig

PROMPT_TOKENS = 20
INIT_TEXT = "Generate Python code given a natural language instruction."
PREFIX_TOKENS = 10


@dataclass(frozen=True, kw_only=True)
class PromptMethod(PeftMethod):
    """Prompt tuning: learned embeddings before the input (Lester et al., arXiv 2104.08691).

    They are initialized with the embeddings of a sentence.
    """

    allowed: ClassVar[frozenset[str]] = frozenset({"virtual_tokens", "init_text"})
    understood: ClassVar[frozenset[str]] = frozenset(
        {"num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"}
    )

    def config_type(self) -> type[PeftConfig]:
        """Return PEFT's ``PromptTuningConfig``."""
        from peft import PromptTuningConfig  # noqa: PLC0415  (seconds)

        return PromptTuningConfig

    def config(self, base: LoadedBase, options: MethodOptions) -> PromptTuningConfig:
        """Return a config with random initialization: PEFT's text initialization would load a tokenizer by name."""
        from peft import PromptTuningConfig  # noqa: PLC0415  (seconds)

        return PromptTuningConfig(
            num_virtual_tokens=options.virtual_tokens or PROMPT_TOKENS,
            task_type="SEQ_2_SEQ_LM" if base.family.encoder_decoder else "CAUSAL_LM",
        )

    def initialize(
        self, model: PeftModel, base: LoadedBase, options: MethodOptions, calibration: Calibration | None
    ) -> None:
        """Initialize with the embeddings of the text's tokens, repeated as often as necessary."""
        tokens = LiteralTokenizer(base.tokenizer).encode_text(
            INIT_TEXT if options.init_text is None else options.init_text
        )
        if not tokens:
            raise InvalidInput("the text that initializes virtual tokens is empty", fix="Leave out `--init-text`")
        encoders, inputs = cast("Any", model.prompt_encoder), cast("Any", base.model.get_input_embeddings())
        weight: torch.Tensor = encoders["default"].embedding.weight
        with torch.no_grad():
            known: torch.Tensor = inputs.weight
            ids = torch.tensor(tokens, device=known.device).repeat(len(weight) // len(tokens) + 1)[: len(weight)]
            weight.copy_(known[ids])


@dataclass(frozen=True, kw_only=True)
class PrefixMethod(PeftMethod):
    """Prefix tuning: learned keys and values before those of every layer (Li and Liang, arXiv 2101.00190).

    Without re-parametrization, as in the study.
    """

    allowed: ClassVar[frozenset[str]] = frozenset({"virtual_tokens"})
    understood: ClassVar[frozenset[str]] = frozenset(
        {
            *("num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"),
            "encoder_hidden_size",
        }
    )

    def check(self, family: Family, options: MethodOptions) -> None:
        """Refuse what cannot work; raises InvalidInput."""
        super().check(family, options)
        if options.gradient_checkpointing:
            raise InvalidInput(
                "prefix tuning does not work with gradient checkpointing",
                why="the prefix is in the key-value cache, which checkpointing switches off",
                fix="Leave out `--gradient-checkpointing`, or choose `--method prompt`",
            )

    def config_type(self) -> type[PeftConfig]:
        """Return PEFT's ``PrefixTuningConfig``."""
        from peft import PrefixTuningConfig  # noqa: PLC0415  (seconds)

        return PrefixTuningConfig

    def config(self, base: LoadedBase, options: MethodOptions) -> PrefixTuningConfig:
        """Return PEFT's config, with the study's number of virtual tokens as default."""
        from peft import PrefixTuningConfig  # noqa: PLC0415  (seconds)

        return PrefixTuningConfig(
            num_virtual_tokens=options.virtual_tokens or PREFIX_TOKENS,
            task_type="SEQ_2_SEQ_LM" if base.family.encoder_decoder else "CAUSAL_LM",
        )


@dataclass(frozen=True, kw_only=True)
class Ia3Method(PeftMethod):
    """IA3: learned vectors that rescale attention and feed-forward activations (Liu et al., arXiv 2205.05638)."""

    understood: ClassVar[frozenset[str]] = frozenset({"target_modules", "feedforward_modules", "init_ia3_weights"})

    def config_type(self) -> type[PeftConfig]:
        """Return PEFT's ``IA3Config``."""
        from peft import IA3Config  # noqa: PLC0415  (seconds)

        return IA3Config

    def config(self, base: LoadedBase, options: MethodOptions) -> IA3Config:
        """Return PEFT's config with the modules of the family."""
        from peft import IA3Config  # noqa: PLC0415  (seconds)

        return IA3Config(
            target_modules=list(base.family.ia3_targets),
            feedforward_modules=list(base.family.ia3_feedforward),
            task_type="SEQ_2_SEQ_LM" if base.family.encoder_decoder else "CAUSAL_LM",
        )


PROMPT = PromptMethod(id="prompt", learning_rate=3e-3)
PREFIX = PrefixMethod(id="prefix", learning_rate=3e-2)
IA3 = Ia3Method(id="ia3", learning_rate=3e-3)
