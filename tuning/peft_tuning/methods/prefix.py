"""Prefix tuning: learned keys and values before those of every layer (Li and Liang, arXiv 2101.00190)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peft_core.errors import InvalidInput
from peft_daemon.engines.torch.base_model import LoadedBase
from peft_daemon.engines.torch.families import Family
from peft_tuning.methods.base import MethodOptions
from peft_tuning.methods.peft_method import PeftMethod

if TYPE_CHECKING:
    from peft import PeftConfig, PrefixTuningConfig

VIRTUAL_TOKENS = 10


@dataclass(frozen=True, kw_only=True)
class PrefixMethod(PeftMethod):
    """Prefix tuning without re-parametrization, as in the study."""

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
                why="the prefix lies in the key-value cache, which checkpointing switches off",
                fix="Leave out `--gradient-checkpointing`, or choose `--method prompt`",
            )

    def config_type(self) -> type[PeftConfig]:
        """PEFT's ``PrefixTuningConfig``."""
        from peft import PrefixTuningConfig  # noqa: PLC0415  (seconds)

        return PrefixTuningConfig

    def config(self, base: LoadedBase, options: MethodOptions) -> PrefixTuningConfig:
        """The study's number of virtual tokens where the options say nothing."""
        from peft import PrefixTuningConfig  # noqa: PLC0415  (seconds)

        return PrefixTuningConfig(
            num_virtual_tokens=options.virtual_tokens or VIRTUAL_TOKENS,
            task_type="SEQ_2_SEQ_LM" if base.family.encoder_decoder else "CAUSAL_LM",
        )


PREFIX = PrefixMethod(id="prefix", learning_rate=3e-2)
