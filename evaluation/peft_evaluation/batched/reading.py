"""Reading many prompts: what all begin with once, the rest one behind the other in rows without padding.

Attention is causal, so the states of a common beginning are the same for all prompts; a mask keeps the rests apart,
and positions begin anew for each. What was read last as a common beginning is kept, so that the next group of the same
strategy finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peft_daemon.engines.torch.adapters import LoadedAdapter
from peft_evaluation.batched.rows import Layers, Rows, cache, mask, states

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WORTH_KEEPING = 4
"""Tokens by which a common beginning has to be longer than the kept one to be read for itself: a pass costs as much."""


@dataclass(frozen=True, eq=False)
class Read:
    """Prompts that are read; each is a row."""

    rows: Rows
    logits: Tensor
    """Of what may follow each prompt, float32, (prompts, vocabulary)."""
    evaluated: tuple[int, ...]
    """Tokens computed for each; those of the common beginning are counted for the first prompt alone."""


class PromptReader:
    """Reads prompts with one model. One thread may use it."""

    def __init__(self, model: PreTrainedModel, *, tokens_at_once: int, check: Callable[[], None]) -> None:
        """``tokens_at_once`` of a pass; a prompt that is longer takes a pass of its own.

        ``check`` is called before each pass, and raises when there is to be none.
        """
        self._model, self._tokens_at_once, self._check = model, tokens_at_once, check
        self._weights: object = None
        self._virtual = 0
        self._tokens: list[int] = []
        self._layers: Layers = ()

    def put_on(self, adapter: LoadedAdapter, weights: object) -> None:
        """Say what the model computes with now; under other ``weights`` nothing that was kept holds."""
        if weights != self._weights or not self._layers:
            self._weights, self._tokens = weights, []
            self._virtual = adapter.virtual_tokens
            self._layers = adapter.virtual or _empty(self._model)

    @torch.inference_mode()
    def read(self, prompts: Sequence[Sequence[int]]) -> Read:
        """All of them, none empty. The same prompt is read once. Raises what ``check`` raises."""
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
            rows.join(more)
        at = [distinct.index(tuple(prompt)) for prompt in prompts]
        rows.take(at)
        firsts = {index: number for number, index in reversed(list(enumerate(at)))}
        evaluated = tuple(
            len(prompts[number]) - shared if firsts[index] == number else 0 for number, index in enumerate(at)
        )
        evaluated = (evaluated[0] + shared - reused, *evaluated[1:])
        return Read(rows, torch.cat(logits)[torch.tensor(at)], evaluated)

    def _begin(self, prompts: Sequence[Sequence[int]]) -> int:
        """Keep the states of what all prompts begin with; how many of its tokens were kept already.

        A single prompt does not say where a beginning ends that others share: what is kept stays.
        """
        shortest = min(map(len, prompts)) - 1
        known = min(common([self._tokens, *prompts]), shortest)
        wanted = min(common(prompts), shortest) if len(prompts) > 1 else known
        if wanted < known + WORTH_KEEPING:
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

    def _pass(self, rests: Sequence[Sequence[int]]) -> tuple[Rows, Tensor]:
        """Read the rests of some prompts behind what is kept; a row each."""
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
        return Rows(aligned, [kept + len(rest) for rest in rests]), logits

    def _forward(self, rests: Sequence[Sequence[int]], wanted: Sequence[int]) -> tuple[Layers, Tensor]:
        """Compute texts that each follow what is kept: all states, and the logits after the positions ``wanted``."""
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


def common(texts: Sequence[Sequence[int]]) -> int:
    """How many tokens all texts begin with."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False)))


def _empty(model: PreTrainedModel) -> Layers:
    """No positions at all, in the shape and type in which the model's layers hold them."""
    from transformers import DynamicCache  # noqa: PLC0415  (where it is needed)

    held = DynamicCache()
    model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), past_key_values=held, use_cache=True)
    return [(keys[:, :, :0], values[:, :, :0]) for keys, values, *_ in held]


def _cut(layer: tuple[Tensor, Tensor], positions: int) -> tuple[Tensor, Tensor]:
    return layer[0][:, :, :positions], layer[1][:, :, :positions]


def _picked(states: Tensor, at: Tensor) -> Tensor:
    """(1, heads, positions, size) → (rows, heads, positions of a row, size)."""
    return states[0][:, at].transpose(0, 1)
