"""Judge answers by their likelihood: one forward pass tells whether a model would write them.

Greedy decoding writes an answer exactly when each of its tokens, the end token among them, is the likeliest after those
before it. So exact matches need no generation, and the nats per token beside them show a gain long before the likeliest
token changes.

Where the answer is the rest of a line, completion stops at the line's end. A model that goes on with the next line is
then as right as one that ends, and it may write the last of the answer and the line end as one token (``):`` and a
newline are one in many vocabularies). All these ways to end are added up.

Prompts of holes in one file begin alike. Examples are therefore read in the order of their tokens, each from where it
differs from the one before: a third to a half of the tokens need not be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from math import ceil
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines.torch.adapters import AdapterCache, LoadedAdapter
from peft_daemon.engines.torch.base_model import LoadedBase
from peft_tuning.batch import IGNORED, LOSS_CHUNK, ROW_STEP, BatchLayout, Collator, target_states
from peft_tuning.encode import EncodedExample, ExampleTokenizer
from peft_tuning.prepare import layout_of, padding_of

BATCH_TOKENS = 1024
"""Positions of one forward pass, where examples are read in batches."""
ADAPTERS_IN_MEMORY = 2


@dataclass(frozen=True)
class AnswerLikelihood:
    """How likely a model writes one answer."""

    exact: bool
    """Whether greedy decoding writes it, and ends there."""
    nats: float
    """-log p of the answer and its end, for each of its tokens; of an edit, for each token of the lines that change."""


_Pass = tuple[Sequence[EncodedExample], tuple[torch.Tensor, torch.Tensor, nn.Module]]
"""Some examples, and of one forward pass the states that predict their targets, the targets, and the output layer."""


class Endings:
    """The tokens that end a line, by the text that they write before the line's end."""

    def __init__(self, texts: Sequence[str]) -> None:
        """``texts`` is what each token of the vocabulary writes."""
        self._texts = texts
        self._tokens: dict[str, list[int]] = {}
        for token, text in enumerate(texts):
            before, newline, _ = text.partition("\n")
            if newline:
                self._tokens.setdefault(before.rstrip(), []).append(token)
        self._longest = max(map(len, self._tokens), default=0)

    @classmethod
    def of(cls, base: LoadedBase) -> Endings:
        """Return those of a base model's vocabulary."""
        tokenizer: Any = base.tokenizer
        return cls(tokenizer.batch_decode([[token] for token in range(len(tokenizer))]))

    def of_answer(self, response: Sequence[int]) -> dict[int, list[int]]:
        """Return the tokens that end an answer, by the position at which they would stand in ``response``."""
        last = len(response) - 1
        found, left = {last: [response[last], *self._tokens.get("", ())]}, ""
        for position in range(last - 1, -1, -1):
            left = self._texts[response[position]] + left
            if len(left) > self._longest:
                break
            if left.strip() and left in self._tokens:
                found[position] = self._tokens[left]
        return found


class AnswerScorer:
    """Scores answers with one base and its adapters, whose layers it puts into the base while it computes."""

    def __init__(self, base: LoadedBase) -> None:
        self._base, self._adapters = base, AdapterCache(base, ADAPTERS_IN_MEMORY)
        self._pad, self._start = padding_of(base, ExampleTokenizer.of(base))

    @cached_property
    def _endings(self) -> Endings:
        return Endings.of(self._base)

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
        loaded = self._adapters.activate(adapter)
        layout = layout_of(self._base.model, self._base, max(map(len, examples), default=0))
        alike = layout is BatchLayout.PACKED and not loaded.virtual_tokens
        passes = self._in_order(examples) if alike else self._in_batches(examples, layout, loaded)
        found: dict[int, AnswerLikelihood] = {}
        self._base.model.eval()  # type: ignore[no-untyped-call]
        try:
            with torch.inference_mode():
                for some, (states, targets, head) in passes:
                    table = _Table.of(states, targets, head, self._ends(some))
                    end = 0
                    for example in some:
                        end += example.loss_tokens  # what is learned of its prompt comes before its answer
                        rows = range(end - len(example.response), end)
                        found[id(example)] = table.answer(rows, example.judged_tokens or len(rows))
                    on_scored(len(some))
        finally:
            self._adapters.activate(None)
        return tuple(found[id(example)] for example in examples)

    def _in_order(self, examples: Sequence[EncodedExample]) -> Iterator[_Pass]:
        """Read one example after the other, in the order of their tokens, each from where it differs on."""
        model, device = self._base.model, self._base.model.device
        cache = DynamicCache()
        held: tuple[int, ...] = ()
        for example in sorted(examples, key=lambda each: each.prompt + each.response):
            tokens = (*example.prompt, *example.response[:-1])
            first_target = min((*example.learned, len(example.prompt)))
            pairs: Iterator[tuple[int, int]] = zip(held, tokens[: first_target - 1], strict=False)
            known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            if differing := cache.get_seq_length() - known:
                cache.crop(-differing)
            unread, targets = list(tokens[known:]), example.targets(IGNORED)[known:]
            filling = ROW_STEP * ceil(len(unread) / ROW_STEP) - len(unread)
            inputs = {
                "input_ids": torch.tensor([unread + [self._pad] * filling], device=device),
                "past_key_values": cache,
            }
            wanted = torch.tensor([targets + [IGNORED] * filling], device=device)
            yield (example,), target_states(model, inputs, wanted)
            held = tokens

    def _in_batches(
        self, examples: Sequence[EncodedExample], layout: BatchLayout, adapter: LoadedAdapter
    ) -> Iterator[_Pass]:
        """Read padded batches; with virtual tokens, which are keys and values before the first position, one by one."""
        room = 1 if adapter.virtual_tokens else BATCH_TOKENS
        collator = Collator(self._base.model, layout, room, pad=self._pad, decoder_start=self._start)
        for batch in collator.split(examples):
            tensors = collator.tensors(batch)
            inputs = _after_virtual_tokens(tensors.inputs, adapter)
            yield batch.examples, target_states(self._base.model, inputs, tensors.targets)

    def _ends(self, examples: Sequence[EncodedExample]) -> dict[int, list[int]]:
        """Return the tokens that end an answer there, by the row of their target."""
        made, end = {}, 0
        for example in examples:
            end += example.loss_tokens
            first, last = end - len(example.response), end - 1
            made[last] = [example.response[-1]]
            if example.ends_with_line:
                made |= {first + at: tokens for at, tokens in self._endings.of_answer(example.response).items()}
        return made


def _after_virtual_tokens(inputs: Mapping[str, Any], adapter: LoadedAdapter) -> Mapping[str, Any]:
    if not adapter.virtual_tokens:
        return inputs
    return {"input_ids": inputs["input_ids"], "past_key_values": adapter.empty_cache()}


@dataclass(frozen=True)
class _Table:
    """What a forward pass says of each target."""

    target: torch.Tensor
    """log p of the target."""
    likeliest: torch.Tensor
    """Whether the target is the likeliest token."""
    end: torch.Tensor
    """log p of an end of the answer before this target; -inf where none of its ends can stand."""
    ends: torch.Tensor
    """Whether the likeliest token is such an end."""

    @classmethod
    def of(
        cls, states: torch.Tensor, targets: torch.Tensor, head: nn.Module, ends: Mapping[int, Sequence[int]]
    ) -> _Table:
        """Compute the table, of so few rows at a time as the loss is; ``ends`` are the ending tokens of some rows."""
        count = len(targets)
        made = cls(
            torch.empty(count),
            torch.empty(count, dtype=torch.bool),
            torch.full((count,), -torch.inf),
            torch.zeros(count, dtype=torch.bool),
        )
        for start in range(0, count, LOSS_CHUNK):
            part = slice(start, start + LOSS_CHUNK)
            log_p = head(states[part]).float().log_softmax(dim=-1)
            likeliest = log_p.argmax(dim=-1)
            made.target[part] = log_p.gather(1, targets[part][:, None])[:, 0].cpu()
            made.likeliest[part] = (likeliest == targets[part]).cpu()
            for row in range(start, min(start + LOSS_CHUNK, count)):
                if row in ends:
                    made.end[row] = log_p[row - start, list(ends[row])].logsumexp(dim=0).cpu()
                    made.ends[row] = int(likeliest[row - start]) in ends[row]
        return made

    def answer(self, rows: range, judged: int) -> AnswerLikelihood:
        """Return the likelihood of the answer whose tokens are the targets of ``rows``, the end token last.

        Its nats are divided by ``judged`` tokens.
        """
        part = slice(rows.start, rows.stop)
        zero = torch.zeros(1)
        before = torch.cat((zero, self.target[part].cumsum(dim=0)[:-1]))
        log_p = (before + self.end[part]).logsumexp(dim=0)
        written = torch.cat((zero == 0, self.likeliest[part].cumprod(dim=0)[:-1].bool()))
        return AnswerLikelihood(bool((written & self.ends[part]).any()), -float(log_p) / judged)
