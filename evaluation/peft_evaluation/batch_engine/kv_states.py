"""The key-value states of several sequences: evaluating many prompts, and a step that adds one token to each.

Sequences are padded on the left, and the padding is masked. The common prefix of the prompts is evaluated once. The
rests are packed one after the other into one sequence without padding; a mask keeps them apart, and the positions start
again for each. The last common prefix is kept for the next prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from peft_daemon.engines.torch.adapters import LoadedAdapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SPARE_POSITIONS = 32
"""Positions that are allocated in advance: each growth copies the whole layer, so it must not happen at each token."""

KvLayers = Sequence[tuple[Tensor, Tensor]]
"""Keys and values of each layer; shape (rows, heads, positions, size of a head)."""


class _GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # of its __init_subclass__
    """A ``DynamicLayer`` that allocates positions in advance."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self._hold(keys, values)

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append positions to every row, and return all keys and values."""
        begins = self.get_seq_length()
        ends = begins + key_states.shape[2]
        if ends > self._room[0].shape[2]:
            self._hold(*(room[:, :, :begins] for room in self._room), more=ends - begins)
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, begins:ends] = new
        self.keys, self.values = (room[:, :, :ends] for room in self._room)
        return self.keys, self.values

    def _hold(self, keys: Tensor, values: Tensor, *, more: int = 0) -> None:
        self._room = _with_spare(keys, more + SPARE_POSITIONS), _with_spare(values, more + SPARE_POSITIONS)
        self.keys, self.values = (room[:, :, : keys.shape[2]] for room in self._room)

    def get_seq_length(self) -> int:
        """Return the number of positions; the base class takes a layer without any for an uninitialized one."""
        return 0 if self.keys is None else self.keys.shape[2]


def cache(layers: KvLayers) -> Cache:
    """Return a cache for the model's ``forward`` that starts with a copy of these states."""
    return Cache(layers=[_GrowingLayer(keys, values) for keys, values in layers])


def states(held: Cache) -> KvLayers:
    """Return the states that a cache holds now."""
    layers: list[Any] = held.layers
    return [(layer.keys, layer.values) for layer in layers]


def mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the mask to add to attention scores; ``visible`` is True where a position may be attended to."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(~visible, torch.finfo(dtype).min)


class KvRows:
    """A batch of sequences of different lengths, one per row, that grow by one token per step."""

    def __init__(self, layers: KvLayers, lengths: Sequence[int]) -> None:
        """``lengths`` has the number of positions of each row, the last ones of ``layers``; the others are padding."""
        self._cache = cache(layers)
        self._lengths = list(lengths)

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def width(self) -> int:
        """Number of positions of the longest row."""
        return max(self._lengths)

    @torch.inference_mode()
    def step(self, model: PreTrainedModel, tokens: Sequence[int]) -> Tensor:
        """Add one token to each row, and return the logits of the next tokens, float32, (rows, vocabulary)."""
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

    def select(self, indices: Sequence[int]) -> None:
        """Keep these rows (at least one), in this order; a row may be named several times."""
        if list(indices) == list(range(len(self))):
            return
        lengths = [self._lengths[index] for index in indices]
        begins = self._cache.get_seq_length() - max(lengths)
        at = torch.tensor(indices, device=states(self._cache)[0][0].device)
        self._cache = cache(
            [(keys[:, :, begins:][at], values[:, :, begins:][at]) for keys, values in states(self._cache)]
        )
        self._lengths = lengths

    def append(self, others: KvRows) -> None:
        """Append the rows of ``others``."""
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
    """Return the rows of both, the shorter ones padded with zeros on the left."""
    positions = max(first.shape[2], second.shape[2])
    joined = first.new_zeros(len(first) + len(second), first.shape[1], positions, first.shape[3])
    joined[: len(first), :, positions - first.shape[2] :] = first
    joined[len(first) :, :, positions - second.shape[2] :] = second
    return joined


MIN_NEW_PREFIX_TOKENS = 4
"""A common prefix is evaluated in a pass of its own only if it has this many tokens more than the kept one."""


@dataclass(frozen=True, eq=False)
class PrefilledPrompts:
    """Prompts that were evaluated; each is a row."""

    rows: KvRows
    logits: Tensor
    """Logits of the next token of each prompt, float32, (prompts, vocabulary)."""
    evaluated: tuple[int, ...]
    """Tokens computed for each prompt; those of the common prefix count for the first prompt only."""


class PromptReader:
    """Evaluates prompts with one model. Only one thread may use it."""

    def __init__(self, model: PreTrainedModel, *, tokens_at_once: int, check: Callable[[], None]) -> None:
        """A pass evaluates up to ``tokens_at_once`` tokens; a longer prompt takes a pass of its own.

        ``check`` is called before each pass, and raises an exception to stop.
        """
        self._model, self._tokens_at_once, self._check = model, tokens_at_once, check
        self._weights: object = None
        self._virtual = 0
        self._tokens: list[int] = []
        self._layers: KvLayers = ()

    def use_adapter(self, adapter: LoadedAdapter, weights: object) -> None:
        """Set the adapter that the model has now; if ``weights`` differ from before, the kept prefix is dropped."""
        if weights != self._weights or not self._layers:
            self._weights, self._tokens = weights, []
            self._virtual = adapter.virtual_tokens
            self._layers = adapter.virtual or _empty(self._model)

    @torch.inference_mode()
    def read(self, prompts: Sequence[Sequence[int]]) -> PrefilledPrompts:
        """Evaluate prompts, none of which may be empty; equal prompts once. Raises what ``check`` raises."""
        distinct = list(dict.fromkeys(map(tuple, prompts)))
        reused = self._begin(distinct)
        shared = len(self._tokens)
        parts, logits = [], []
        for some in self._passes(distinct):
            rows, following = self._pass([prompt[shared:] for prompt in some])
            parts.append(rows)
            logits.append(following)
        rows = parts[0]
        for more in parts[1:]:
            rows.append(more)
        at = [distinct.index(tuple(prompt)) for prompt in prompts]
        rows.select(at)
        firsts = {index: number for number, index in reversed(list(enumerate(at)))}
        evaluated = tuple(
            len(prompts[number]) - shared if firsts[index] == number else 0 for number, index in enumerate(at)
        )
        evaluated = (evaluated[0] + shared - reused, *evaluated[1:])
        return PrefilledPrompts(rows, torch.cat(logits)[torch.tensor(at)], evaluated)

    def _begin(self, prompts: Sequence[Sequence[int]]) -> int:
        """Keep the states of the prompts' common prefix, and return how many of its tokens were kept already.

        For a single prompt the kept prefix stays, as it is not known how much of the prompt later ones share.
        """
        shortest = min(map(len, prompts)) - 1
        known = min(common_prefix([self._tokens, *prompts]), shortest)
        wanted = min(common_prefix(prompts), shortest) if len(prompts) > 1 else known
        if wanted < known + MIN_NEW_PREFIX_TOKENS:
            wanted = known
        self._layers = [_cut(each, self._virtual + known) for each in self._layers]
        self._tokens = list(prompts[0][:wanted])
        for start in range(known, wanted, self._tokens_at_once):
            self._layers, _ = self._forward([self._tokens[start : start + self._tokens_at_once]], [])
        return known

    def _passes(self, prompts: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
        some: list[tuple[int, ...]] = []
        size = 0
        for prompt in prompts:
            length = len(prompt) - len(self._tokens)
            if some and size + length > self._tokens_at_once:
                yield some
                some, size = [], 0
            some.append(prompt)
            size += length
        yield some

    def _pass(self, rests: Sequence[Sequence[int]]) -> tuple[KvRows, Tensor]:
        """Evaluate the rests of some prompts after the kept prefix; each becomes a row."""
        kept = self._virtual + len(self._tokens)
        ends = torch.tensor([len(rest) for rest in rests]).cumsum(0)
        layers, logits = self._forward(rests, (ends - 1).tolist())
        longest = max(map(len, rests))
        at = torch.zeros(len(rests), kept + longest, dtype=torch.long)
        for row, (rest, end) in enumerate(zip(rests, ends.tolist(), strict=True)):
            before = longest - len(rest)
            at[row, before : before + kept] = torch.arange(kept)
            at[row, before + kept :] = torch.arange(kept + end - len(rest), kept + end)
        at = at.to(logits.device)
        aligned = [(_picked(keys, at), _picked(values, at)) for keys, values in layers]
        return KvRows(aligned, [kept + len(rest) for rest in rests]), logits

    def _forward(self, rests: Sequence[Sequence[int]], wanted: Sequence[int]) -> tuple[KvLayers, Tensor]:
        """Evaluate texts that each follow the kept prefix; return all states, and the logits after ``wanted``."""
        self._check()
        model, device = self._model, self._model.device
        kept = self._layers[0][0].shape[2]
        lengths = torch.tensor([len(rest) for rest in rests], device=device)
        owner = torch.arange(len(rests), device=device).repeat_interleave(lengths)
        positions = torch.cat([torch.arange(kept, kept + len(rest), device=device) for rest in rests])
        own = (owner[:, None] == owner[None, :]).tril()
        visible = torch.cat([own.new_ones(len(owner), kept), own], dim=1)
        held = cache(self._layers)
        output = model(
            input_ids=torch.tensor([[token for rest in rests for token in rest]], device=device),
            attention_mask=mask(visible[None, None], model.dtype),
            position_ids=positions[None],
            past_key_values=held,
            use_cache=True,
            logits_to_keep=torch.tensor(wanted or [len(owner) - 1], device=device),
        )
        return states(held), output.logits[0].float()


def common_prefix(texts: Sequence[Sequence[int]]) -> int:
    """Return the length of the common prefix of all texts, in tokens."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False)))


def _empty(model: PreTrainedModel) -> KvLayers:
    """Return layers without positions, in the shape and type of the model's layers."""
    from transformers import DynamicCache  # noqa: PLC0415  (where it is needed)

    held = DynamicCache()
    model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), past_key_values=held, use_cache=True)
    return [(keys[:, :, :0], values[:, :, :0]) for keys, values, *_ in held]


def _cut(layer: tuple[Tensor, Tensor], positions: int) -> tuple[Tensor, Tensor]:
    return layer[0][:, :, :positions], layer[1][:, :, :positions]


def _picked(states: Tensor, at: Tensor) -> Tensor:
    """(1, heads, positions, size) → (rows, heads, positions of a row, size)."""
    return states[0][:, at].transpose(0, 1)
