"""Batches: the examples of each optimizer step, the tensors of its forward passes, and their loss.

The examples of a step, its *effective batch*, depend on seed and epoch alone, never on memory, devices or an earlier
run. How a step is split into forward passes (micro-batches) depends on the layout:

- ``PACKED``: examples follow one another in one row, filled up at its end to a multiple of ``ROW_STEP``. The beginning
  that all prompts share (a chat format's system text) is there once: attention is causal, so its states are the same
  for each. A mask keeps the examples apart and ``position_ids`` start again for each, so each sees exactly what it
  would see alone.
- ``PADDED``: one example per row, for methods that put virtual tokens before each; grouped by length.
- ``ENCODER_DECODER``: the prompt for the encoder, the answer for the decoder; padded and grouped likewise.

The loss is on answers, and on the code around them in examples that are learned whole (``encode``); each token counts
with its example's weight. The vocabulary
projection is computed where there is a loss only, and never all at once: with 151,936 words it is a third of a small
model's work, and its logits (0.6 MB per token and copy) are most of the memory of a plain training script. The model
runs unchanged, but its output layer gets an empty input; the states that it would have got are projected afterwards, in
chunks, where there is a target.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import takewhile
from math import ceil
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from peft_core.errors import InvalidInput
from peft_tuning.encode import EncodedExample
from peft_tuning.methods.lora import in_type_of_base

ROW_STEP = 64
"""Step of the lengths of packed rows: torch compiles its matrix products for each length, and keeps them: gigabytes."""
IGNORED = -100
"""Target of a position that has no loss."""
SORTED_BATCHES = 50
"""Effective batches that are sorted by length together if rows are padded (as transformers' grouping does)."""
LOSS_CHUNK = 128
"""Positions projected at a time: 78 MB of logits with the largest vocabulary of the study."""


class BatchLayout(StrEnum):
    """The layout of examples in tensors."""

    PACKED = "packed"
    PADDED = "padded"
    ENCODER_DECODER = "encoder-decoder"


@dataclass(frozen=True, eq=False)
class BatchTensors:
    """The tensors of one forward pass."""

    inputs: dict[str, Tensor]
    """Keyword arguments of the model's ``forward``."""
    targets: Tensor
    """(rows, positions): the token each position has to predict, or ``IGNORED``."""
    tokens: int
    """Tokens of its examples, prompt and answer, without padding."""
    weights: Tensor | None = None
    """(rows, positions): how much each position counts; None where all count alike."""

    @property
    def loss_tokens(self) -> int:
        """Number of positions with loss."""
        return int((self.targets != IGNORED).sum())

    def to(self, device: torch.device | str, dtype: torch.dtype) -> BatchTensors:
        """Move to ``device``; a floating-point mask is converted to ``dtype``, which attention requires."""
        moved = {
            name: each.to(device, dtype=dtype) if each.is_floating_point() else each.to(device)
            for name, each in self.inputs.items()
        }
        weights = None if self.weights is None else self.weights.to(device)
        return BatchTensors(moved, self.targets.to(device), self.tokens, weights)


@dataclass(frozen=True)
class MicroBatch:
    """Examples of one forward pass, and how many first tokens of the prompt they share."""

    examples: tuple[EncodedExample, ...]
    shared: int = 0
    width: int = 0
    """Positions the model computes, padding included."""


@dataclass(frozen=True, kw_only=True)
class StepSchedule:
    """The examples of each step and the steps after which the model is evaluated, fixed before a run begins.

    ``effective_batches`` gives the order within an epoch.
    """

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
        """Number of steps in an epoch, of which the last may have fewer examples."""
        return ceil(len(self.lengths) / self.batch_size)

    @property
    def steps(self) -> int:
        """Number of steps in the whole run."""
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
        """Numbers of the steps (from 1) after which the model is evaluated, always with the last step."""
        each, parts = self.steps_per_epoch, self.evaluations_per_epoch
        regular = {
            epoch * each + ceil(part * each / parts) for epoch in range(self.epochs) for part in range(1, parts + 1)
        }
        return frozenset({step for step in regular if step < self.steps} | {self.steps})

    def epoch(self, step: int) -> float:
        """Return the epochs done after ``step`` steps."""
        return step / self.steps_per_epoch


def effective_batches(
    lengths: Sequence[int], size: int, *, seed: int, epoch: int, grouped: bool
) -> list[tuple[int, ...]]:
    """Return the order of one epoch: indices of the examples of each step; the last may have fewer than ``size``.

    ``grouped`` puts examples of similar length into a step, for layouts that pad.
    """
    generator = random.Random(f"{seed}/{epoch}")  # noqa: S311  (an order, not a secret)
    order = list(range(len(lengths)))
    generator.shuffle(order)
    if not grouped:
        return [tuple(order[at : at + size]) for at in range(0, len(order), size)]
    steps = []
    for at in range(0, len(order), size * SORTED_BATCHES):
        group = sorted(order[at : at + size * SORTED_BATCHES], key=lambda index: (-lengths[index], index))
        steps += [tuple(group[start : start + size]) for start in range(0, len(group), size)]
    short = [step for step in steps if len(step) < size]
    full = [step for step in steps if len(step) == size]
    generator.shuffle(full)
    return full + short


def micro_batches(examples: Sequence[EncodedExample], layout: BatchLayout, batch_tokens: int) -> list[MicroBatch]:
    """Split examples into forward passes of at most ``batch_tokens`` positions; a longer example has its own."""
    ordered = sorted(examples, key=len, reverse=True)
    made: list[MicroBatch] = []
    while ordered:
        batch: MicroBatch | None = None
        left: list[EncodedExample] = []
        for example in ordered:
            # Packed rows take any example that still fits; padded ones only neighbours in length.
            grown = _micro_batch((*batch.examples, example), layout) if batch else _micro_batch((example,), layout)
            if batch is None or (grown.width <= batch_tokens and (layout is BatchLayout.PACKED or not left)):
                batch = grown
            else:
                left.append(example)
        if batch is not None:
            made.append(batch)
        ordered = left
    return made


def _micro_batch(examples: tuple[EncodedExample, ...], layout: BatchLayout) -> MicroBatch:
    if layout is BatchLayout.PACKED:
        shared = _shared(examples)
        used = shared + sum(len(each) - 1 - shared for each in examples)
        return MicroBatch(examples, shared, ROW_STEP * ceil(used / ROW_STEP))
    longest = max(len(each.prompt) for each in examples), max(len(each.response) for each in examples)
    if layout is BatchLayout.PADDED:
        return MicroBatch(examples, 0, len(examples) * (max(map(len, examples)) - 1))
    return MicroBatch(examples, 0, len(examples) * sum(longest))


def _shared(examples: Sequence[EncodedExample]) -> int:
    """Count the first tokens that all prompts share, without those that predict a token with loss."""
    if len(examples) < 2:
        return 0
    columns = zip(*(each.prompt[: min((*each.learned, len(each.prompt))) - 1] for each in examples), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def collate(batch: MicroBatch, layout: BatchLayout, *, pad: int, decoder_start: int = 0) -> BatchTensors:
    """Return the tensors of a batch.

    ``pad`` fills padded positions; ``decoder_start`` begins a decoder's input.
    """
    make = {BatchLayout.PACKED: _packed, BatchLayout.PADDED: _padded, BatchLayout.ENCODER_DECODER: _encoder_decoder}[
        layout
    ]
    tokens = sum(map(len, batch.examples))
    inputs, targets, owner = make(batch, pad, decoder_start)
    if all(each.weight == 1 for each in batch.examples):
        return BatchTensors(inputs, targets, tokens)
    by_owner = torch.tensor([1.0, *(each.weight for each in batch.examples), 1.0])  # of what fills a row: the last
    return BatchTensors(inputs, targets, tokens, by_owner[owner].expand_as(targets))


_Collated = tuple[dict[str, Tensor], Tensor, Tensor]
"""Inputs, targets, and the number of the example, from 1, that each position belongs to; 0 where several share it."""


def _packed(batch: MicroBatch, pad: int, _start: int) -> _Collated:
    """Put all examples into one row; the last token of an answer is only a target, so it is not an input.

    What fills the row is behind all that has a loss, and sees itself alone.
    """
    shared = batch.shared
    ids, targets = list(batch.examples[0].prompt[:shared]), [IGNORED] * shared
    positions, owner = list(range(shared)), [0] * shared
    for number, each in enumerate(batch.examples, start=1):
        own = (*each.prompt, *each.response)
        ids += own[shared:-1]
        targets += each.targets(IGNORED)[shared:]
        positions += range(shared, len(own) - 1)
        owner += [number] * (len(own) - 1 - shared)
    filling = batch.width - len(ids)
    ids += [pad] * filling
    targets += [IGNORED] * filling
    positions += range(positions[-1] + 1, positions[-1] + 1 + filling)
    owner += [FILLING] * filling
    inputs = {"input_ids": torch.tensor([ids]), "position_ids": torch.tensor([positions])}
    if len(batch.examples) > 1:
        inputs["attention_mask"] = _block_mask(torch.tensor(owner))
    return inputs, torch.tensor([targets]), torch.tensor([owner])


FILLING = -1
"""Number of the example that fills a row."""


def _block_mask(owner: Tensor) -> Tensor:
    """Return a mask (1, 1, n, n) to add to attention scores: a token sees the earlier ones of its example."""
    count = len(owner)
    seen = ((owner[None, :] == 0) & (owner[:, None] != FILLING)) | (owner[None, :] == owner[:, None])
    seen &= torch.ones(count, count, dtype=torch.bool).tril()
    # Not the type's own minimum: scores are added to it, and it must survive a change of type.
    return torch.zeros(count, count).masked_fill_(~seen, -1e9)[None, None]


def _padded(batch: MicroBatch, pad: int, _start: int) -> _Collated:
    longest = max(map(len, batch.examples)) - 1
    ids = torch.full((len(batch.examples), longest), pad)
    mask = torch.zeros_like(ids)
    targets = torch.full_like(ids, IGNORED)
    for at, each in enumerate(batch.examples):
        own = torch.tensor((*each.prompt, *each.response))
        ids[at, : len(own) - 1], mask[at, : len(own) - 1] = own[:-1], 1
        targets[at, : len(own) - 1] = torch.tensor(each.targets(IGNORED))
    return {"input_ids": ids, "attention_mask": mask}, targets, _rows(batch)


def _rows(batch: MicroBatch) -> Tensor:
    return torch.arange(1, len(batch.examples) + 1)[:, None]


def _encoder_decoder(batch: MicroBatch, pad: int, start: int) -> _Collated:
    count = len(batch.examples)
    ids = torch.full((count, max(len(each.prompt) for each in batch.examples)), pad)
    mask = torch.zeros_like(ids)
    longest = max(len(each.response) for each in batch.examples)
    decoder_ids = torch.full((count, longest), pad)
    targets = torch.full((count, longest), IGNORED)
    for at, each in enumerate(batch.examples):
        ids[at, : len(each.prompt)], mask[at, : len(each.prompt)] = torch.tensor(each.prompt), 1
        response = torch.tensor(each.response)
        decoder_ids[at, : len(response)] = torch.cat((torch.tensor([start]), response[:-1]))
        targets[at, : len(response)] = response
    return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": decoder_ids}, targets, _rows(batch)


class Collator:
    """Turn examples into tensors for one model, on its device."""

    def __init__(
        self, model: nn.Module, layout: BatchLayout, batch_tokens: int, *, pad: int, decoder_start: int
    ) -> None:
        self.layout, self._batch_tokens = layout, batch_tokens
        self._pad, self._decoder_start = pad, decoder_start
        embeddings = model.get_input_embeddings().weight  # type: ignore[operator]
        self._dtype, self._device = embeddings.dtype, embeddings.device

    def split(self, examples: Sequence[EncodedExample]) -> list[MicroBatch]:
        """Split examples into forward passes."""
        return micro_batches(examples, self.layout, self._batch_tokens)

    def tensors(self, batch: MicroBatch) -> BatchTensors:
        """Return the tensors of one forward pass."""
        made = collate(batch, self.layout, pad=self._pad, decoder_start=self._decoder_start)
        return made.to(self._device, self._dtype)


def response_loss(model: nn.Module, batch: BatchTensors, *, forward: nn.Module | None = None) -> Tensor:
    """Return the weighted sum of the cross entropies (nats) of all target tokens, which can be differentiated.

    ``forward`` is what is called when ``model`` is wrapped (for several processes).
    """
    with in_type_of_base(model):
        states, targets, head = target_states(model, batch.inputs, batch.targets, forward=forward)
    weights = None if batch.weights is None else batch.weights[batch.targets != IGNORED]
    return chunked_cross_entropy(states, targets, head, weights)


def target_states(
    model: nn.Module, inputs: Mapping[str, Any], targets: Tensor, *, forward: nn.Module | None = None
) -> tuple[Tensor, Tensor, nn.Module]:
    """Return the states (n, hidden) that predict a target, the targets (n,) in the order of the examples, and the head.

    Virtual tokens of prompt tuning stand before the input, so states are matched with targets from the end.
    """
    head = output_layer(model)
    states: list[Tensor] = []

    def take(_head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states.append(inputs[0])
        return (inputs[0][:, :0],)

    handle = head.register_forward_pre_hook(take)
    try:
        (forward or model)(**inputs, use_cache=False)
    finally:
        handle.remove()
    kept = targets != IGNORED
    return states[0][:, -targets.shape[1] :][kept], targets[kept], head


def output_layer(model: nn.Module) -> nn.Module:
    """Return the layer that projects states on the vocabulary, as ``forward`` calls it (an adapter may wrap it)."""
    base: Any = model
    if hasattr(base, "get_base_model"):
        base = base.get_base_model()
    head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    if not isinstance(head, nn.Module):
        raise InvalidInput(
            f"{type(base).__name__} has no output layer to take the loss from", fix="Choose a language model as base"
        )
    return head


def chunked_cross_entropy(
    states: Tensor, targets: Tensor, head: nn.Module, weights: Tensor | None = None, *, chunk: int = LOSS_CHUNK
) -> Tensor:
    """Return the sum over n positions of -log p(target): ``states`` (n, hidden), ``targets`` and ``weights`` (n,).

    Gradients are computed chunk by chunk in the forward pass, so the logits of one chunk are all that exist at once.
    """
    if not torch.is_grad_enabled():
        parts = [slice(at, at + chunk) for at in range(0, len(states), chunk)]
        return torch.stack([_loss_of(head, states[part], (targets, weights), part) for part in parts]).sum()
    trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
    return _apply(states, (targets, weights), head, chunk, *trained)


_Weighted = tuple[Tensor, Tensor | None]
"""Targets and their weights."""


def _loss_of(head: nn.Module, states: Tensor, wanted: _Weighted, part: slice) -> Tensor:
    """Return the sum for the targets of ``part``, which ``states`` predict."""
    logits, (targets, weights) = head(states).float(), wanted
    if weights is None:
        return functional.cross_entropy(logits, targets[part], reduction="sum")
    return functional.cross_entropy(logits, targets[part], reduction="none") @ weights[part]


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, wanted: _Weighted, head: nn.Module, chunk: int, *trained: Tensor) -> Tensor:
        total = states.new_zeros((), dtype=torch.float32)
        state_gradients = torch.empty_like(states)
        gradients = [torch.zeros_like(parameter) for parameter in trained]
        for start in range(0, len(states), chunk):
            part = slice(start, start + chunk)
            with torch.enable_grad():
                own = states[part].detach().requires_grad_()
                loss = _loss_of(head, own, wanted, part)
                found = torch.autograd.grad(loss, (own, *trained))
            total += loss.detach()
            state_gradients[part] = found[0]
            for total_gradient, each in zip(gradients, found[1:], strict=True):
                total_gradient.add_(each)
        ctx.save_for_backward(state_gradients, *gradients)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = outputs[0]
        states, *trained = ctx.saved_tensors
        gradients = [each * scale.to(each.dtype) for each in trained]
        return states * scale.to(states.dtype), None, None, None, *gradients


_apply = cast(Callable[..., Tensor], _ChunkedCrossEntropy.apply)
