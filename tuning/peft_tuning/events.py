"""Events of a tuning run, from loading to the adapter in use. The command line displays them."""

from __future__ import annotations

import msgspec

JUDGED = {"fill": "holes", "intent": "sentences", "edit": "moments of commits"}
"""What an adapter is judged by, for each task."""
MAX_FORGOTTEN = 0.05
"""Largest loss on general code, in nats per token, without a warning."""


class Loading(msgspec.Struct, frozen=True, kw_only=True, tag="loading"):
    """Something is being read or scored, before or after training."""

    what: str
    done: int = 0
    of: int = 0
    """0: not known."""


class DataLoaded(msgspec.Struct, frozen=True, kw_only=True, tag="data"):
    """The data of a run: how much there is, where it is from, and how it was divided."""

    name: str
    train: int
    validation: int
    """Examples that the best weights, and the adapter's scale, are chosen by."""
    test: int
    """Examples that judge the adapter."""
    licence: str
    provenance: str


class TrainingStarted(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """Training begins or continues."""

    steps: int
    first_step: int
    """Steps done by an earlier, interrupted run."""
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
    """Peak memory so far."""
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


class AdapterRegistered(msgspec.Struct, frozen=True, kw_only=True, tag="registered"):
    """The adapter is in the registry."""

    name: str
    """Its name, or the beginning of its digest: a refused version of a name that is in use does not get the name."""
    digest: str
    folder: str
    """The folder with its card, curves and weights."""
    in_use: tuple[str, ...]
    """Tasks it serves from the next request on; empty when it was not activated."""
    repository: str | None = None
    """The repository in which it serves them; None: everywhere."""
    why_not: str = ""
    """The reason why it is not in use."""
    refused: bool = False
    """Whether ``adapters use`` would refuse it for that reason: the engine or the models that serve have to change."""
    unlearned: int = 0
    """Documents of the repository that were at hand, and that neither this run nor an earlier one had time for."""


class ModelWritten(msgspec.Struct, frozen=True, kw_only=True, tag="written"):
    """A whole model was tuned. It is a base of its own, so it is not registered as an adapter."""

    name: str
    folder: str
    """Its folder, in transformers' layout."""


class HoleAverage(msgspec.Struct, frozen=True):
    """Averages over some holes."""

    holes: int
    exact: float
    """Share that greedy decoding answers exactly, from 0 to 1."""
    nats: float
    """-log p per token of the right answer, the mean over the holes: less is better."""


class ScaleScore(msgspec.Struct, frozen=True):
    """The score of one point in the gate's sweep."""

    scale: float
    """See ``GateVerdict.scale``."""
    average: HoleAverage


class ContextScore(msgspec.Struct, frozen=True):
    """The score of one point in the gate's sweep with code of other files in its prompts."""

    scale: float
    """See ``GateVerdict.scale``; 0: what serves without the new adapter."""
    tokens: int
    """Most tokens of that code."""
    average: HoleAverage


class GateVerdict(msgspec.Struct, frozen=True, kw_only=True, tag="verdict"):
    """The decision of the gate about one task, with its figures."""

    task: str = "fill"
    """The task that the adapter would serve."""
    activate: bool
    reason: str
    scale: float
    """The best point of the sweep, from 0 to 1: the adapter's scale, or the share of the way from ``start`` to it."""
    start: str
    """The adapter that the run began with; empty: new weights, which the base is changed by."""
    context: int
    """Tokens of other files' code in the prompts of what was judged; what is in use from now on has them too."""
    context_alone: bool
    """Whether what serves stays, and is shown that code from now on."""
    sweep: tuple[ScaleScore, ...]
    with_context: tuple[ContextScore, ...]
    """Tried beside the sweep; empty where no setting leaves it open, or there is no code of other files."""
    opponent: str
    """What serves without the new adapter: the name of an adapter, or of the base."""
    served_context: int
    """Tokens of other files' code in its prompts."""
    base: HoleAverage
    """The bare base on the judged holes."""
    served: HoleAverage
    """The opponent on the judged holes."""
    adapter: HoleAverage
    """What was chosen in the sweep on the judged holes: the adapter, or what serves with ``context``."""
    p_nats: float
    """One-sided, of a paired permutation test on the nats of each hole, opponent against adapter."""
    p_exact: float
    """One-sided, of McNemar's exact test."""
    general_served: HoleAverage
    """The opponent on general code, for the check for forgetting; without holes where sentences are judged."""
    general_adapter: HoleAverage
    """The adapter on general code."""

    @property
    def forgets(self) -> bool:
        """Whether the adapter is worse than the opponent on general code, by more than ``MAX_FORGOTTEN``."""
        return self.general_adapter.nats - self.general_served.nats > MAX_FORGOTTEN

    @property
    def metrics(self) -> dict[str, float]:
        """The figures by name, for the manifest."""
        return {
            "gate_holes": float(self.base.holes),
            "gate_nats_base": self.base.nats,
            "gate_nats_served": self.served.nats,
            "gate_nats": self.adapter.nats,
            "gate_exact_base": self.base.exact,
            "gate_exact_served": self.served.exact,
            "gate_exact": self.adapter.exact,
            "gate_p_nats": self.p_nats,
            "gate_p_exact": self.p_exact,
            **(
                {"general_nats_served": self.general_served.nats, "general_nats": self.general_adapter.nats}
                if self.general_served.holes
                else {}
            ),
            "gate_context_tokens": float(self.context),
            **{f"sweep_nats_{point.scale:g}": point.average.nats for point in self.sweep},
            **{f"context_nats_{'adapter' if it.scale else 'served'}": it.average.nats for it in self.with_context},
        }


TrainingEvent = TrainingStarted | StepFinished | Evaluated | CheckpointSaved | TrainingFinished
TuneEvent = TrainingEvent | Loading | DataLoaded | GateVerdict | AdapterRegistered | ModelWritten


def ignore(_event: TuneEvent) -> None:
    """Ignore an event."""


def duration(seconds: float) -> str:
    """Format seconds as ``2:05`` or ``1:02:05``."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
