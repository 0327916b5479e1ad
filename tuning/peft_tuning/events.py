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


class TrainingStarted(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """Training begins, or goes on."""

    steps: int
    first_step: int
    """Steps that an earlier, interrupted run had done."""
    examples: int
    trainable_parameters: int


class StepFinished(msgspec.Struct, frozen=True, kw_only=True, tag="step"):
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


class CheckpointSaved(msgspec.Struct, frozen=True, kw_only=True, tag="saved"):
    """A checkpoint is on the disk."""

    step: int


class TrainingFinished(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """Training is over."""

    step: int
    best_step: int
    best_loss: float | None
    seconds: float
    stopped_early: bool


TrainingEvent = TrainingStarted | StepFinished | Evaluated | CheckpointSaved | TrainingFinished
OnProgress = Callable[[TrainingEvent], None]


def ignore(_event: TrainingEvent) -> None:
    """Shows nothing."""


class AdapterRegistered(msgspec.Struct, frozen=True, kw_only=True, tag="registered"):
    """The adapter is in the registry."""

    name: str
    digest: str
    folder: str
    """Where its card, curves and weights lie."""
    in_use: tuple[str, ...]
    """Tasks it serves from the next request on; empty when it was not activated."""
    repository: str | None = None
    """Where it serves them; None: everywhere."""
    why_not: str = ""
    """Why it was not put in use."""


class ModelWritten(msgspec.Struct, frozen=True, kw_only=True, tag="written"):
    """A whole model was tuned: it is a base of its own, which no registry of adapters takes."""

    name: str
    folder: str
    """In transformers' layout."""


class HoleAverage(msgspec.Struct, frozen=True):
    """Of some holes."""

    holes: int
    exact: float
    similarity: float


FORGOTTEN = 0.05
"""Loss of mean similarity on general code from which on the verdict warns."""


class ScaleScore(msgspec.Struct, frozen=True):
    """One point of the sweep."""

    scale: float
    average: HoleAverage


class GateVerdict(msgspec.Struct, frozen=True, kw_only=True, tag="verdict"):
    """What the gate found."""

    activate: bool
    reason: str
    scale: float
    """The best of the sweep; 0 when that is the base."""
    sweep: tuple[ScaleScore, ...]
    base: HoleAverage
    """On the judged holes."""
    adapter: HoleAverage
    p_similarity: float
    p_exact: float
    general_base: HoleAverage
    general_adapter: HoleAverage
    """The forgetting check."""

    @property
    def forgets(self) -> bool:
        """Whether general code suffers."""
        return self.general_base.similarity - self.general_adapter.similarity > FORGOTTEN

    @property
    def metrics(self) -> dict[str, float]:
        """For the manifest."""
        return {
            "gate_holes": float(self.base.holes),
            "gate_similarity_base": self.base.similarity,
            "gate_similarity": self.adapter.similarity,
            "gate_exact_base": self.base.exact,
            "gate_exact": self.adapter.exact,
            "gate_p_similarity": self.p_similarity,
            "gate_p_exact": self.p_exact,
            "general_similarity_base": self.general_base.similarity,
            "general_similarity": self.general_adapter.similarity,
            **{f"sweep_similarity_{point.scale:g}": point.average.similarity for point in self.sweep},
        }


def duration(seconds: float) -> str:
    """``2:05`` or ``1:02:05``."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
