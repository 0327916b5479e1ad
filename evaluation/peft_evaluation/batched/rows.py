"""The key-value states of several texts, and a step that adds one token to each. Knows nothing of prompts or searches.

Texts are aligned at their ends: what is missing at the beginning of a shorter one is masked. Rows can be left out,
doubled, put in another order, and joined with others, so that the place of an answer that is done is free for the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SPARE = 32
"""Positions that a layer's memory grows by: growing it by one for every token would copy all of it every time."""

Layers = Sequence[tuple[Tensor, Tensor]]
"""Keys and values of each layer, (rows, heads, positions, size of a head)."""


class _Layer(DynamicLayer):  # type: ignore[no-untyped-call]  # of its __init_subclass__
    """As its base, with room to grow into."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self._hold(keys, values)

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append positions to every row; all keys and values there are now."""
        begins = self.get_seq_length()
        ends = begins + key_states.shape[2]
        if ends > self._room[0].shape[2]:
            self._hold(*(room[:, :, :begins] for room in self._room), more=ends - begins)
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, begins:ends] = new
        self.keys, self.values = (room[:, :, :ends] for room in self._room)
        return self.keys, self.values

    def _hold(self, keys: Tensor, values: Tensor, *, more: int = 0) -> None:
        self._room = _with_spare(keys, more + SPARE), _with_spare(values, more + SPARE)
        self.keys, self.values = (room[:, :, : keys.shape[2]] for room in self._room)

    def get_seq_length(self) -> int:
        """Positions there are; the base takes a layer without any for one that is not there yet."""
        return 0 if self.keys is None else self.keys.shape[2]


def cache(layers: Layers) -> Cache:
    """A cache for the model's ``forward`` that begins with these states, which it copies."""
    return Cache(layers=[_Layer(keys, values) for keys, values in layers])


def states(held: Cache) -> Layers:
    """What a cache holds now."""
    layers: list[Any] = held.layers
    return [(layer.keys, layer.values) for layer in layers]


def mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention's scores; ``visible`` is True where a position may be looked at."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(~visible, torch.finfo(dtype).min)


class Rows:
    """Texts that grow together, each with its own length."""

    def __init__(self, layers: Layers, lengths: Sequence[int]) -> None:
        """``layers`` end where the texts do; ``lengths`` are the positions of each that count."""
        self._cache = cache(layers)
        self._lengths = list(lengths)

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def width(self) -> int:
        """Positions of the longest text."""
        return max(self._lengths)

    @torch.inference_mode()
    def step(self, model: PreTrainedModel, tokens: Sequence[int]) -> Tensor:
        """Add one token to each row. Logits of what may follow it, float32, (rows, vocabulary)."""
        device = model.device
        lengths = torch.tensor(self._lengths, device=device)
        width = self._cache.get_seq_length() + 1
        visible = torch.arange(width, device=device) >= (width - 1 - lengths)[:, None]
        output = model(
            input_ids=torch.tensor(tokens, device=device)[:, None],
            attention_mask=mask(visible[:, None, None], model.dtype),
            position_ids=lengths[:, None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._lengths = [length + 1 for length in self._lengths]
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def take(self, indices: Sequence[int]) -> None:
        """Go on with these rows, in this order; one may be there several times or not at all, but not none of all."""
        if list(indices) == list(range(len(self))):
            return
        lengths = [self._lengths[index] for index in indices]
        begins = self._cache.get_seq_length() - max(lengths)
        at = torch.tensor(indices, device=states(self._cache)[0][0].device)
        self._cache = cache(
            [(keys[:, :, begins:][at], values[:, :, begins:][at]) for keys, values in states(self._cache)]
        )
        self._lengths = lengths

    def join(self, others: Rows) -> None:
        """Put other texts behind these."""
        pairs = zip(states(self._cache), states(others._cache), strict=True)
        self._cache = cache(
            [(_below(*keys), _below(*values)) for keys, values in (zip(*pair, strict=True) for pair in pairs)]
        )
        self._lengths += others._lengths


def _with_spare(states: Tensor, count: int) -> Tensor:
    rows, heads, positions, size = states.shape
    room = states.new_empty(rows, heads, positions + count, size)
    room[:, :, :positions] = states
    return room


def _below(first: Tensor, second: Tensor) -> Tensor:
    """Rows of both, the shorter ones with zeros before them."""
    positions = max(first.shape[2], second.shape[2])
    joined = first.new_zeros(len(first) + len(second), first.shape[1], positions, first.shape[3])
    joined[: len(first), :, positions - first.shape[2] :] = first
    joined[len(first) :, :, positions - second.shape[2] :] = second
    return joined
