"""IA3: learned vectors that rescale attention and feed-forward activations (Liu et al., arXiv 2205.05638)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peft_daemon.engines.torch.base_model import LoadedBase
from peft_tuning.methods.base import MethodOptions, PeftMethod

if TYPE_CHECKING:
    from peft import IA3Config, PeftConfig


@dataclass(frozen=True, kw_only=True)
class Ia3Method(PeftMethod):
    """IA3; it has no options."""

    understood: ClassVar[frozenset[str]] = frozenset({"target_modules", "feedforward_modules", "init_ia3_weights"})

    def config_type(self) -> type[PeftConfig]:
        """PEFT's ``IA3Config``."""
        from peft import IA3Config  # noqa: PLC0415  (seconds)

        return IA3Config

    def config(self, base: LoadedBase, options: MethodOptions) -> IA3Config:
        """The family's modules."""
        from peft import IA3Config  # noqa: PLC0415  (seconds)

        return IA3Config(
            target_modules=list(base.family.ia3_targets),
            feedforward_modules=list(base.family.ia3_feedforward),
            task_type="SEQ_2_SEQ_LM" if base.family.encoder_decoder else "CAUSAL_LM",
        )


IA3 = Ia3Method(id="ia3", learning_rate=3e-3)
