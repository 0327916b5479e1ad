"""From encoded examples to optimizer steps, and from a step to the tensors of its forward passes.

A step is an *effective batch*: which examples it holds depends on (seed, epoch) alone, never on memory, devices or an
earlier run. How it is cut into rows is a second question with one answer per layout:

- ``PACKED``: examples stand one after another in one row, without padding. What all prompts of the row begin with (a
  chat format's system text) stands there once: attention is causal, so its states are the same for each. A mask keeps
  the examples apart and ``position_ids`` begin anew, so each sees exactly what it would see alone.
- ``PADDED``: one example per row, for methods that put virtual tokens before each; grouped by length.
- ``ENCODER_DECODER``: the prompt for the encoder, the answer for the decoder; padded and grouped likewise.

Does not cover the loss.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile

import torch
from torch import Tensor

from peft_tuning.encoding import Encoded

IGNORED = -100
"""Target of a position that has no loss."""
GROUP = 50
"""Effective batches that are sorted by length together, where rows are padded (as transformers' grouping does)."""


class Layout(StrEnum):
    """How examples are laid out in tensors."""

    PACKED = "packed"
    PADDED = "padded"
    ENCODER_DECODER = "encoder-decoder"


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """The tensors of one forward pass."""

    inputs: dict[str, Tensor]
    """Keyword arguments of the model's ``forward``."""
    targets: Tensor
    """(rows, positions): the token each position has to predict, or ``IGNORED``."""
    tokens: int
    """Tokens of its examples, prompt and answer, without padding."""

    @property
    def loss_tokens(self) -> int:
        """How many positions have loss."""
        return int((self.targets != IGNORED).sum())

    def to(self, device: torch.device | str, dtype: torch.dtype) -> MicroBatch:
        """The same on ``device``; a floating-point mask in ``dtype``, which attention demands."""
        moved = {
            name: each.to(device, dtype=dtype) if each.is_floating_point() else each.to(device)
            for name, each in self.inputs.items()
        }
        return MicroBatch(moved, self.targets.to(device), self.tokens)


@dataclass(frozen=True)
class Row:
    """Examples of one forward pass, and how many first tokens of the prompt they share."""

    examples: tuple[Encoded, ...]
    shared: int = 0
    width: int = 0
    """Positions the model computes, padding included."""


def effective_batches(
    lengths: Sequence[int], size: int, *, seed: int, epoch: int, grouped: bool
) -> list[tuple[int, ...]]:
    """The order of one epoch: indices of the examples of each step; the last may have fewer than ``size``.

    ``grouped`` puts examples of similar length into a step, for layouts that pad.
    """
    generator = random.Random(f"{seed}/{epoch}")  # noqa: S311  (an order, not a secret)
    order = list(range(len(lengths)))
    generator.shuffle(order)
    if not grouped:
        return [tuple(order[at : at + size]) for at in range(0, len(order), size)]
    steps = []
    for at in range(0, len(order), size * GROUP):
        group = sorted(order[at : at + size * GROUP], key=lambda index: (-lengths[index], index))
        steps += [tuple(group[start : start + size]) for start in range(0, len(group), size)]
    short = [step for step in steps if len(step) < size]
    full = [step for step in steps if len(step) == size]
    generator.shuffle(full)
    return full + short


def rows(examples: Sequence[Encoded], layout: Layout, batch_tokens: int) -> list[Row]:
    """Cut examples into forward passes of at most ``batch_tokens`` positions (a longer example has one to itself)."""
    ordered = sorted(examples, key=len, reverse=True)
    made: list[Row] = []
    while ordered:
        row: Row | None = None
        left: list[Encoded] = []
        for example in ordered:
            # Packed rows take any example that still fits; padded ones only neighbours in length.
            grown = _row((*row.examples, example), layout) if row else _row((example,), layout)
            if row is None or (grown.width <= batch_tokens and (layout is Layout.PACKED or not left)):
                row = grown
            else:
                left.append(example)
        if row is not None:
            made.append(row)
        ordered = left
    return made


def _row(examples: tuple[Encoded, ...], layout: Layout) -> Row:
    if layout is Layout.PACKED:
        shared = _shared(examples)
        return Row(examples, shared, shared + sum(len(each) - 1 - shared for each in examples))
    longest = max(len(each.prompt) for each in examples), max(len(each.response) for each in examples)
    if layout is Layout.PADDED:
        return Row(examples, 0, len(examples) * (max(map(len, examples)) - 1))
    return Row(examples, 0, len(examples) * sum(longest))


def _shared(examples: Sequence[Encoded]) -> int:
    """First tokens that all prompts share; the last token of a prompt is never shared: it predicts the answer."""
    if len(examples) < 2:
        return 0
    columns = zip(*(each.prompt[:-1] for each in examples), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def collate(row: Row, layout: Layout, *, pad: int, decoder_start: int = 0) -> MicroBatch:
    """The tensors of a row. ``pad`` fills padded positions; ``decoder_start`` begins a decoder's input."""
    make = {Layout.PACKED: _packed, Layout.PADDED: _padded, Layout.ENCODER_DECODER: _encoder_decoder}[layout]
    tokens = sum(map(len, row.examples))
    inputs, targets = make(row, pad, decoder_start)
    return MicroBatch(inputs, targets, tokens)


def _packed(row: Row, _pad: int, _start: int) -> tuple[dict[str, Tensor], Tensor]:
    """One row; the last token of an answer is predicted but predicts nothing, so it is not computed."""
    shared = row.shared
    ids, targets = list(row.examples[0].prompt[:shared]), [IGNORED] * shared
    positions, owner = list(range(shared)), [0] * shared
    for number, each in enumerate(row.examples, start=1):
        own = (*each.prompt, *each.response)
        ids += own[shared:-1]
        targets += [IGNORED] * (len(each.prompt) - 1 - shared) + list(each.response)
        positions += range(shared, len(own) - 1)
        owner += [number] * (len(own) - 1 - shared)
    inputs = {"input_ids": torch.tensor([ids]), "position_ids": torch.tensor([positions])}
    if len(row.examples) > 1:
        inputs["attention_mask"] = _block_mask(torch.tensor(owner))
    return inputs, torch.tensor([targets])


def _block_mask(owner: Tensor) -> Tensor:
    """(1, 1, n, n), added to attention scores: a token sees earlier tokens of its own example and the shared ones."""
    count = len(owner)
    seen = (owner[None, :] == 0) | (owner[None, :] == owner[:, None])
    seen &= torch.ones(count, count, dtype=torch.bool).tril()
    # Not the type's own minimum: scores are added to it, and it must survive a change of type.
    return torch.zeros(count, count).masked_fill_(~seen, -1e9)[None, None]


def _padded(row: Row, pad: int, _start: int) -> tuple[dict[str, Tensor], Tensor]:
    longest = max(map(len, row.examples)) - 1
    ids = torch.full((len(row.examples), longest), pad)
    mask = torch.zeros_like(ids)
    targets = torch.full_like(ids, IGNORED)
    for at, each in enumerate(row.examples):
        own = torch.tensor((*each.prompt, *each.response))
        ids[at, : len(own) - 1], mask[at, : len(own) - 1] = own[:-1], 1
        targets[at, len(each.prompt) - 1 : len(own) - 1] = own[len(each.prompt) :]
    return {"input_ids": ids, "attention_mask": mask}, targets


def _encoder_decoder(row: Row, pad: int, start: int) -> tuple[dict[str, Tensor], Tensor]:
    count = len(row.examples)
    ids = torch.full((count, max(len(each.prompt) for each in row.examples)), pad)
    mask = torch.zeros_like(ids)
    longest = max(len(each.response) for each in row.examples)
    decoder_ids = torch.full((count, longest), pad)
    targets = torch.full((count, longest), IGNORED)
    for at, each in enumerate(row.examples):
        ids[at, : len(each.prompt)], mask[at, : len(each.prompt)] = torch.tensor(each.prompt), 1
        response = torch.tensor(each.response)
        decoder_ids[at, : len(response)] = torch.cat((torch.tensor([start]), response[:-1]))
        targets[at, : len(response)] = response
    return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": decoder_ids}, targets
