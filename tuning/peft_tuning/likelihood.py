"""Judge answers by their likelihood: one forward pass tells whether a model would write them.

Greedy decoding writes an answer exactly when each of its tokens, the end token among them, is the likeliest after those
before it. So exact matches need no generation, and the nats per token beside them show a gain long before the likeliest
token changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines.torch.adapters import AdapterCache, LoadedAdapter
from peft_daemon.engines.torch.base_model import LoadedBase
from peft_tuning.batch import LOSS_CHUNK, Collator, MicroBatch, target_states
from peft_tuning.encode import EncodedExample, ExampleTokenizer
from peft_tuning.prepare import layout_of, padding_of

BATCH_TOKENS = 1024
"""Positions of one forward pass."""
ADAPTERS_IN_MEMORY = 2


@dataclass(frozen=True)
class AnswerLikelihood:
    """How likely a model writes one answer."""

    exact: bool
    """Whether greedy decoding writes it, and ends there."""
    nats: float
    """-log p of each token of the answer, its end included; the mean."""


class AnswerScorer:
    """Scores answers with one base and its adapters, whose layers it puts into the base while it computes."""

    def __init__(self, base: LoadedBase) -> None:
        self._base, self._adapters = base, AdapterCache(base, ADAPTERS_IN_MEMORY)
        self._pad, self._start = padding_of(base, ExampleTokenizer.of(base))

    def score(
        self,
        examples: Sequence[EncodedExample],
        adapter: AdapterLease | None,
        *,
        on_scored: Callable[[int], None] = lambda count: None,
    ) -> tuple[AnswerLikelihood, ...]:
        """Return the likelihood of each answer, in order, with the adapter at its scale; with None the base's own.

        ``on_scored`` gets how many were scored since it was called last. Raises InvalidInput for an adapter that cannot
        be loaded, or a scale that it cannot have.
        """
        model = self._base.model
        loaded = self._adapters.activate(adapter)
        layout = layout_of(model, self._base, max(map(len, examples), default=0))
        # Virtual tokens are keys and values before the first position: of one example at a time.
        room = 1 if loaded.virtual_tokens else BATCH_TOKENS
        collator = Collator(model, layout, room, pad=self._pad, decoder_start=self._start)
        found: dict[int, AnswerLikelihood] = {}
        model.eval()  # type: ignore[no-untyped-call]
        try:
            with torch.inference_mode():
                for batch in collator.split(examples):
                    tensors = collator.tensors(batch)
                    inputs = _after_virtual_tokens(tensors.inputs, loaded)
                    states, targets, head = target_states(model, inputs, tensors.targets)
                    for example, score in zip(batch.examples, _scores(batch, states, targets, head), strict=True):
                        found[id(example)] = score
                    on_scored(len(batch.examples))
        finally:
            self._adapters.activate(None)
        return tuple(found[id(example)] for example in examples)


def _after_virtual_tokens(inputs: Mapping[str, Any], adapter: LoadedAdapter) -> Mapping[str, Any]:
    if not adapter.virtual_tokens:
        return inputs
    return {"input_ids": inputs["input_ids"], "past_key_values": adapter.empty_cache()}


def _scores(batch: MicroBatch, states: torch.Tensor, targets: torch.Tensor, head: nn.Module) -> list[AnswerLikelihood]:
    nats, likeliest = torch.empty(len(targets)), torch.empty(len(targets), dtype=torch.bool)
    for start in range(0, len(targets), LOSS_CHUNK):
        part = slice(start, start + LOSS_CHUNK)
        logits = head(states[part]).float()
        nats[part] = nn.functional.cross_entropy(logits, targets[part], reduction="none").cpu()
        likeliest[part] = (logits.argmax(dim=-1) == targets[part]).cpu()
    made, end = [], 0
    for example in batch.examples:
        end += example.loss_tokens
        answer = slice(end - len(example.response), end)  # what is learned of its prompt comes before
        made.append(AnswerLikelihood(bool(likeliest[answer].all()), float(nats[answer].mean())))
    return made
