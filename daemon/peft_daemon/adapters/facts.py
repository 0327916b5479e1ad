"""What a checked adapter is, whatever its method: the part of its manifest that can be read off its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from peft_core.gguf.header import GgufHeader
from peft_daemon.adapters.manifest import TrainingRecord


@dataclass(frozen=True, kw_only=True)
class AdapterFacts:
    """As ``Manifest`` has them."""

    method: str
    """For an adapter whose record names none."""
    engines: tuple[str, ...]
    """Ids of the engines that can serve it."""
    rank: int = 0
    alpha: float = 0.0
    virtual_tokens: int = 0
    targets: tuple[str, ...] = ()
    modules: int = 0
    parameters: int


class CheckedAdapter(Protocol):
    """An adapter that passed every check."""

    @property
    def record(self) -> TrainingRecord | None:
        """What its tuner wrote down."""

    @property
    def base(self) -> GgufHeader:
        """Of the model it was checked against."""

    def facts(self) -> AdapterFacts:
        """What a manifest says of its content."""

    def digest(self, base_sha256: str) -> str:
        """Its content digest."""
