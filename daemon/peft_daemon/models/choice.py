"""Which base models to offer for a machine: their predicted speed, what fits, and the one to recommend.

Nothing is read or measured here. A model's speed is predicted from that of the machine's kernels: reading a prompt
multiplies each of its tokens with the weights of all layers, and writing a token fetches the layers' weights and the
output's from memory once. docs/models.md compares predictions with measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from peft_core.files import format_bytes
from peft_core.status_types import LLAMACPP
from peft_daemon.models.catalogue import ModelEntry, TokenCost

OFFERS = 3
SHORT_PROMPT_TOKENS = 105
"""Length of the prompt for the first key in a new place: with its budget of 224, as measured (docs/performance.md)."""
FULL_PROMPT_TOKENS = 600
"""Length of the prompt that is read in the pauses: with its budget of 1,024, as measured."""
WRITTEN_TOKENS = 12
"""Length of a suggestion: one line of code."""
READING_SHARE = 0.8
"""Of a probe's reading speed, what a model reaches, which has more layers and attends to more. Calibrated with
Qwen2.5-Coder 0.5B and 1.5B (docs/models.md)."""
QUICK_S = 1.0
"""A first suggestion that takes longer comes too late for most of those who type."""
MAX_MEMORY_SHARE = 0.75
"""Of the machine's memory that a model may take: an editor and a browser need the rest."""
MIN_FREE_DISK_BYTES = 1_000_000_000
"""What must be left of the disk."""
_BITS = {"Q4_0": 4.6, "Q4_K_M": 4.9, "Q5_0": 5.6, "Q5_K_M": 5.7, "Q6_K": 6.6, "Q8_0": 8.5, "F16": 16.0, "F32": 32.0}
"""Bits of a weight by quantization, for models whose cost nobody has counted."""


class KernelSpeed(msgspec.Struct, frozen=True):
    """How fast a machine computes with weights of one quantization."""

    weights_per_s: float
    """While a prompt is read: weights times tokens."""
    bytes_per_s: float
    """While tokens are written: bytes of weights."""


class MachineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a machine before a model runs on it."""

    processor: str
    threads: int
    """That an engine computes with."""
    memory_bytes: int
    available_bytes: int
    """Memory that programs can still get."""
    disk_bytes: int
    """Free on the disk of the models."""
    gpu: str
    """Name of a graphics card; empty: none was found."""
    engine: str
    """What was measured."""
    measured_s: float
    """How long that took."""
    kernels: dict[str, KernelSpeed]
    """Speed by quantization; empty: it could not be measured in time."""


class SpeedPrediction(msgspec.Struct, frozen=True):
    """How fast a model will answer."""

    reading: float
    """Tokens per second of a prompt that is not cached."""
    writing: float
    """Tokens per second."""

    @property
    def first_suggestion_s(self) -> float:
        """Seconds from the first key in a new place to a line of code."""
        return SHORT_PROMPT_TOKENS / self.reading + WRITTEN_TOKENS / self.writing

    @property
    def full_prompt_s(self) -> float:
        """Seconds in which a full prompt is read."""
        return FULL_PROMPT_TOKENS / self.reading


@dataclass(frozen=True)
class ModelState:
    """A model of the catalogue on this machine."""

    entry: ModelEntry
    installed: bool
    in_use: bool
    """Whether it is installed and the settings name it."""
    missing_bytes: int
    """Bytes that are still to be fetched."""
    adapters: tuple[str, ...]
    """Adapters of the package that fit it."""


class ModelOffer(msgspec.Struct, frozen=True, kw_only=True):
    """One of the models to choose from."""

    id: str
    bytes: int
    memory_bytes: int
    parameters: int | None
    quantization: str
    licence: str
    fill_score: float | None
    """Published share of holes that it fills exactly."""
    fill_score_source: str
    adapters: tuple[str, ...]
    """Adapters of the package that fit it."""
    installed: bool
    in_use: bool
    reading: float | None
    """Predicted tokens per second; null: this machine was not measured."""
    writing: float | None
    first_suggestion_s: float | None
    full_prompt_s: float | None
    recommended: bool


class ModelPlan(msgspec.Struct, frozen=True):
    """The models to choose from, the smallest first, and the one to take."""

    machine: MachineFacts
    models: tuple[ModelOffer, ...]
    in_use: str
    """Empty: none yet."""
    recommended: str
    reason: str


def predict(cost: TokenCost, kernels: Mapping[str, KernelSpeed]) -> SpeedPrediction:
    """Return how fast a model of this cost is; a quantization that was not measured counts as the slowest that was."""
    speeds = [kernels[cost.quantization]] if cost.quantization in kernels else list(kernels.values())
    return SpeedPrediction(
        reading=READING_SHARE * min(speed.weights_per_s for speed in speeds) / cost.weights,
        writing=min(speed.bytes_per_s for speed in speeds) / cost.bytes,
    )


def token_cost(entry: ModelEntry) -> TokenCost:
    """Return what a token costs this model; for one that nobody has counted, as if all its weights were its layers."""
    if entry.token_cost is not None:
        return entry.token_cost
    bits = _BITS.get(entry.quantization, 8.0)
    weights = max(1, int(entry.bytes * 8 / bits))
    return TokenCost(weights=weights, bytes=entry.bytes, quantization=entry.quantization)


def plan_models(models: Sequence[ModelState], machine: MachineFacts, default: str) -> ModelPlan:
    """Return the models to offer, and which to recommend.

    ``models`` are in the catalogue's order. ``default`` is offered where nothing fits. Otherwise what does not fit into
    memory or onto the disk is not offered, except the model in use. Of models of one size one is offered: the one in
    use, else one that is here, else the first.
    """
    # What was measured is llama.cpp, which runs no folder.
    measured = [each.entry for each in models if LLAMACPP in each.entry.engines] if machine.kernels else []
    speeds = {entry.id: predict(token_cost(entry), machine.kernels) for entry in measured}
    fitting = [each for each in models if each.in_use or fits(each.entry, machine, each.missing_bytes)]
    if fitting:
        by_size = sorted(_one_of_each_size(fitting), key=_size)
        recommended, reason = _recommend(by_size, speeds)
    else:
        by_size = [each for each in models if each.entry.id == default]
        recommended, reason = (
            default,
            (
                f"no model fits well: {format_bytes(machine.available_bytes)} of memory and "
                f"{format_bytes(machine.disk_bytes)} of disk are free. It is the smallest"
            ),
        )
    offered = _around(by_size, recommended)
    return ModelPlan(
        machine,
        tuple(_offer(each, speeds.get(each.entry.id), recommended) for each in offered),
        in_use=next((each.entry.id for each in models if each.in_use), ""),
        recommended=recommended,
        reason=reason,
    )


def fits(entry: ModelEntry, machine: MachineFacts, missing_bytes: int) -> bool:
    """Whether the machine has memory and disk for it, and something left for other programs."""
    memory = min(int(machine.memory_bytes * MAX_MEMORY_SHARE), machine.available_bytes)
    disk = not missing_bytes or missing_bytes + MIN_FREE_DISK_BYTES <= machine.disk_bytes
    return entry.memory_bytes <= memory and disk


def _size(state: ModelState) -> int:
    return state.entry.parameters or token_cost(state.entry).weights


def _one_of_each_size(models: Sequence[ModelState]) -> list[ModelState]:
    kept: dict[int, ModelState] = {}
    for each in models:
        before = kept.get(_size(each))
        if before is None or (each.in_use, each.installed) > (before.in_use, before.installed):
            kept[_size(each)] = each
    return list(kept.values())


def _recommend(by_size: Sequence[ModelState], speeds: Mapping[str, SpeedPrediction]) -> tuple[str, str]:
    """Return the id of the model to recommend, and why: the largest that is quick, else the quickest."""
    predicted = [each for each in by_size if each.entry.id in speeds]
    if not predicted:
        return by_size[0].entry.id, "the smallest, as the machine was too busy or too slow to be measured in time"
    if len(by_size) == 1:
        return by_size[0].entry.id, "no other model fits into the memory and the disk that are free"
    times = {each.entry.id: speeds[each.entry.id].first_suggestion_s for each in predicted}
    quick = [model for model, seconds in times.items() if seconds <= QUICK_S]
    if quick:
        larger = "" if quick[-1] == predicted[-1].entry.id else "; larger ones take longer"
        return quick[-1], f"the largest that shows a first suggestion within {QUICK_S:.0f} s on this machine{larger}"
    quickest = min(times, key=lambda model: times[model])
    return quickest, f"the quickest, as none shows a first suggestion within {QUICK_S:.0f} s on this machine"


def _around(by_size: Sequence[ModelState], recommended: str) -> list[ModelState]:
    """Return ``OFFERS`` models in their order: the recommended one, the one in use, and those nearest in size."""
    at = next((number for number, each in enumerate(by_size) if each.entry.id == recommended), 0)

    def distance(number: int) -> tuple[bool, int, int]:
        return (number != at and not by_size[number].in_use, abs(number - at), -number)

    return [by_size[number] for number in sorted(sorted(range(len(by_size)), key=distance)[:OFFERS])]


def _offer(state: ModelState, speed: SpeedPrediction | None, recommended: str) -> ModelOffer:
    entry = state.entry
    return ModelOffer(
        id=entry.id,
        bytes=entry.bytes,
        memory_bytes=entry.memory_bytes,
        parameters=entry.parameters,
        quantization=entry.quantization,
        licence=entry.licence,
        fill_score=entry.fill_score,
        fill_score_source=entry.fill_score_source,
        adapters=state.adapters,
        installed=state.installed,
        in_use=state.in_use,
        reading=speed.reading if speed else None,
        writing=speed.writing if speed else None,
        first_suggestion_s=speed.first_suggestion_s if speed else None,
        full_prompt_s=speed.full_prompt_s if speed else None,
        recommended=entry.id == recommended,
    )
