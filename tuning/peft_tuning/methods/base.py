"""What every tuning method is: checks first, trainable weights on a base, and files that load bit for bit.

A method is stateless. It trains nothing itself and writes no manifest: see ``training`` and ``packaging``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import msgspec
from msgspec import Meta

from peft_daemon.engines.torch.base_model import LoadedBase, Precision
from peft_daemon.engines.torch.families import Family

if TYPE_CHECKING:
    from torch import Tensor, nn

Calibration = Iterable[Mapping[str, "Tensor"]]
"""A few batches (``input_ids``, ``attention_mask``, …) as in training; for initializations that look at data (EVA)."""


class MethodOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user may change; None means the method's default. A value a method does not have is refused."""

    rank: Annotated[int, Meta(ge=1, le=4096)] | None = None
    alpha: Annotated[float, Meta(gt=0, lt=1e6)] | None = None
    dropout: Annotated[float, Meta(ge=0, lt=1)] | None = None
    dora: bool | None = None
    """Weight-decomposed LoRA (arXiv 2402.09353)."""
    rslora: bool | None = None
    """Scale by alpha / sqrt(rank) instead of alpha / rank (arXiv 2312.03732)."""
    init: str | None = None
    """How LoRA's factors begin: see ``lora.INITIALIZATIONS``."""
    virtual_tokens: Annotated[int, Meta(ge=1, le=1024)] | None = None
    init_text: str | None = None
    """What prompt tuning's virtual tokens begin as."""
    gradient_checkpointing: bool = False
    """Whether training will recompute activations; asked of the method here, switched on by ``training``."""


class Method(Protocol):
    """One way to tune a model."""

    @property
    def id(self) -> str:
        """``lora``, ``qlora-4bit``, …"""

    @property
    def learning_rate(self) -> float:
        """The study's."""

    @property
    def makes_adapter(self) -> bool:
        """Whether what it saves goes on top of a base; full fine-tuning saves a model of its own."""

    def needs_calibration(self, options: MethodOptions) -> bool:
        """Whether ``apply`` has to be given a few batches."""

    def precision_on(self, device: str) -> Precision:
        """How the base has to be loaded on ``cpu``, ``cuda`` or ``mps``."""

    def check(self, family: Family, options: MethodOptions) -> None:
        """Refuse what cannot work, before anything is loaded; raises InvalidInput."""

    def apply(
        self, base: LoadedBase, options: MethodOptions, seed: int, *, calibration: Calibration | None = None
    ) -> nn.Module:
        """The model to train, its trainable parameters initialized from ``seed`` alone, in training mode.

        It takes ``base.model`` over: do not use that afterwards.
        """

    def trainable_parameters(self, model: nn.Module) -> int:
        """How many numbers are trained."""

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write the trained weights into ``folder`` (exists, empty): safetensors and a config. Not atomic."""

    def load(self, base: LoadedBase, folder: Path) -> nn.Module:
        """The tuned model for inference, with bit-identical weights; takes ``base.model`` over.

        Raises NotFound or InvalidInput for a folder that this method did not write or that holds a pickle.
        """
