"""Which examples each optimizer step has, and after which steps the model is evaluated; fixed before a run begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil

from peft_tuning.batching import effective_batches


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Everything follows from these values; see ``batching.effective_batches`` for the order within an epoch."""

    lengths: tuple[int, ...]
    """Tokens of each training example."""
    batch_size: int
    epochs: int
    seed: int
    grouped: bool
    evaluations_per_epoch: int
    max_steps: int | None = None

    @property
    def steps_per_epoch(self) -> int:
        """The last step of an epoch may have fewer examples than the others."""
        return ceil(len(self.lengths) / self.batch_size)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        full = self.epochs * self.steps_per_epoch
        return full if self.max_steps is None else min(full, self.max_steps)

    @cached_property
    def batches(self) -> Sequence[tuple[int, ...]]:
        """Indices of the examples of every step."""
        order: list[tuple[int, ...]] = []
        for epoch in range(ceil(self.steps / self.steps_per_epoch)):
            order += effective_batches(self.lengths, self.batch_size, seed=self.seed, epoch=epoch, grouped=self.grouped)
        return order[: self.steps]

    @cached_property
    def tokens(self) -> tuple[int, ...]:
        """Prompt and answer tokens of every step."""
        return tuple(sum(self.lengths[index] for index in batch) for batch in self.batches)

    @cached_property
    def evaluations(self) -> frozenset[int]:
        """Numbers of the steps (from 1) after which the model is evaluated; the last step is always one."""
        each, parts = self.steps_per_epoch, self.evaluations_per_epoch
        regular = {
            epoch * each + ceil(part * each / parts) for epoch in range(self.epochs) for part in range(1, parts + 1)
        }
        return frozenset({step for step in regular if step < self.steps} | {self.steps})

    def epoch(self, step: int) -> float:
        """Epochs done after ``step`` steps."""
        return step / self.steps_per_epoch
