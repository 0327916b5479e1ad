"""What a run tells while it runs: typed events. Drawing them is in ``progress_view``."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Loading(msgspec.Struct, frozen=True, kw_only=True, tag="loading"):
    """Something is being read or scored, before or after training."""

    what: str
    done: int = 0
    of: int = 0
    """0: not known."""


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """Training begins, or goes on."""

    steps: int
    first_step: int
    """Steps that an earlier, interrupted run had done."""
    examples: int
    trainable_parameters: int


class Step(msgspec.Struct, frozen=True, kw_only=True, tag="step"):
    """One optimizer step is done."""

    step: int
    steps: int
    epoch: float
    loss: float
    """Nats per answer token, over the effective batch."""
    learning_rate: float
    tokens_per_s: float
    """Prompt and answer tokens of examples, since the run began; evaluations are not counted."""
    memory_bytes: int
    """The peak so far."""
    eta_s: float


class Evaluated(msgspec.Struct, frozen=True, kw_only=True, tag="evaluated"):
    """The validation loss after a step."""

    step: int
    loss: float
    """Nats per answer token."""
    best: bool
    """Whether it is the lowest so far."""


class Saved(msgspec.Struct, frozen=True, kw_only=True, tag="saved"):
    """A checkpoint is on the disk."""

    step: int


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """Training is over."""

    step: int
    best_step: int
    best_loss: float | None
    seconds: float
    stopped_early: bool


Event = Started | Step | Evaluated | Saved | Done
OnProgress = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Shows nothing."""
