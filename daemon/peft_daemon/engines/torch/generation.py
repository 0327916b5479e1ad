"""The decoding loop: read the part of the prompt that is not in the cache, then write token by token.

One sequence at a time, by one thread. Between two steps it looks whether the request is still wanted and has time left.
What the last request left in the key-value cache is used again as far as prompt, adapter and scale are the same; the
virtual tokens of an adapter lie in front of it. Encoder-decoder models are not served: they cannot fill in or chat.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peft_core.api_types import FinishReason, Timings
from peft_core.errors import InvalidInput
from peft_daemon.engines.base import AdapterLease, Delta, Finish, GenerationRequest
from peft_daemon.engines.torch.adapters import AdapterShelf, LoadedAdapter
from peft_daemon.engines.torch.answer import AnswerText, Part
from peft_daemon.engines.torch.base_model import LoadedBase
from peft_daemon.engines.torch.sampling import Sampler
from peft_daemon.engines.torch.tokenizer import LiteralTokenizer
from peft_daemon.engines.torch.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import DynamicCache

ACCELERATOR_STEPS = 16
"""How many of a CPU's steps an accelerator reads in one: a step takes it about as long."""


@dataclass
class _Held:
    """The key-value cache and what it is of."""

    weights: tuple[str, float] | None
    """Digest and scale of the adapter; None for the base alone."""
    virtual: int
    cache: DynamicCache
    tokens: list[int] = field(default_factory=list)

    def cut(self, length: int) -> None:
        """Forget all but the first ``length`` tokens."""
        self.cache.crop(self.virtual + length - self.cache.get_seq_length())
        del self.tokens[length:]


@dataclass
class _Clock:
    """Where the time of one request goes; milliseconds."""

    started: float = field(default_factory=time.perf_counter)
    prompt_tokens: int = 0
    reused: int = 0
    evaluated: int = 0
    prompt_ms: float = 0.0
    first_token_ms: float = 0.0
    decode_tokens: int = 0
    decode_ms: float = 0.0

    @property
    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self.started) * 1000

    def timings(self) -> Timings:
        return Timings(
            prompt_tokens=self.prompt_tokens,
            prompt_evaluated=self.evaluated,
            prompt_reused=self.reused,
            prompt_ms=self.prompt_ms,
            first_token_ms=self.first_token_ms,
            decode_tokens=self.decode_tokens,
            decode_ms=self.decode_ms,
            engine_ms=self.elapsed_ms,
        )


class Interrupted(Exception):
    """The request is not to go on."""

    def __init__(self, reason: FinishReason) -> None:
        self.reason = reason
        super().__init__(reason)


def require_decoder_only(base: LoadedBase) -> None:
    """Raise InvalidInput for a model that cannot write after what it reads."""
    if base.family.encoder_decoder:
        raise InvalidInput(
            f"{base.family.id} models are not served", why="they have an encoder", fix="Choose another base model"
        )


def does_not_fit(tokens: int, context_tokens: int) -> InvalidInput:
    """What to raise for a prompt of so many tokens."""
    return InvalidInput(
        "the prompt does not fit into the model's context",
        why=f"it has {tokens} tokens, the context {context_tokens}",
        fix="Send less text or set `context_tokens` higher",
    )


class TextGenerator:
    """One base model with its adapters."""

    def __init__(self, base: LoadedBase, shelf: AdapterShelf, *, context_tokens: int, step_tokens: int) -> None:
        require_decoder_only(base)
        self._model, self._shelf = base.model, shelf
        self._vocabulary = Vocabulary(base.tokenizer)
        self.tokenizer = LiteralTokenizer(base.tokenizer)
        self._context_tokens = context_tokens
        on_cpu = base.model.device.type == "cpu"
        self._step_tokens = step_tokens if on_cpu else step_tokens * ACCELERATOR_STEPS
        self._held: _Held | None = None

    def generate(self, request: GenerationRequest, cancelled: Callable[[], bool]) -> Iterator[Delta | Finish]:
        """The pieces of one answer, silent ones while the prompt is read, then its end.

        Raises InvalidInput for a prompt that does not fit, or an adapter or scale that cannot be served.
        """
        clock = _Clock()
        answer = AnswerText(request.stop)

        def check() -> None:
            if cancelled():
                raise Interrupted(FinishReason.CANCELLED)
            if request.time_budget_ms is not None and clock.elapsed_ms >= request.time_budget_ms:
                raise Interrupted(FinishReason.TIMEOUT)

        def delta(part: Part) -> Iterator[Delta]:
            if part[0]:
                yield Delta(*part, clock.timings())

        try:
            for part in self._parts(request, answer, clock, check):
                if part is None:
                    yield Delta("", (), clock.timings())
                else:
                    yield from delta(part)
            reason = FinishReason.STOP
        except Interrupted as interrupted:
            reason = interrupted.reason
        if reason is not FinishReason.CANCELLED:
            yield from delta(answer.rest())
        yield Finish(reason, clock.timings())

    def _parts(
        self, request: GenerationRequest, answer: AnswerText, clock: _Clock, check: Callable[[], None]
    ) -> Iterator[Part | None]:
        """Text as it becomes certain, before it None after each step of reading.

        Returns where the model or a stop string ends, else raises Interrupted.
        """
        tokens = self.tokenizer.encode_prompt(request.prompt)
        clock.prompt_tokens = len(tokens)
        adapter = self._shelf.put_on(request.adapter)
        room = self._context_tokens - adapter.virtual_tokens - len(tokens)
        if room < 0:
            raise does_not_fit(len(tokens), self._context_tokens - adapter.virtual_tokens)
        if not tokens:
            return
        logits = yield from self._read(tokens, self._prepare(tokens, request.adapter, adapter), clock, check)
        sampler = Sampler(request, self._vocabulary)
        for written in range(1, min(request.max_tokens, room + 1) + 1):
            began = time.perf_counter()
            token = sampler.pick(logits)
            clock.first_token_ms = clock.first_token_ms or clock.elapsed_ms
            clock.decode_tokens = written
            if token in self._vocabulary.ends:
                return
            yield answer.add(self._vocabulary.text(token), sampler.logprob(logits, token))
            if answer.stopped:
                return
            check()
            if written < min(request.max_tokens, room + 1):
                logits = self._forward([token])
                clock.decode_ms += (time.perf_counter() - began) * 1000
        raise Interrupted(FinishReason.LENGTH)

    def _prepare(self, tokens: list[int], lease: AdapterLease | None, adapter: LoadedAdapter) -> _Held:
        """The cache, cut to what it has in common with this prompt; at least the last token is to be read."""
        weights = None if lease is None or lease.scale == 0 else (lease.digest, lease.scale)
        held = self._held
        if held is None or held.weights != weights:
            held = self._held = _Held(weights, adapter.virtual_tokens, adapter.empty_cache())
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(held.tokens, tokens, strict=False)))
        held.cut(min(shared, len(tokens) - 1))
        return held

    def _read(
        self, tokens: list[int], held: _Held, clock: _Clock, check: Callable[[], None]
    ) -> Generator[None, None, Tensor]:
        """Read the rest of the prompt; yields after each step but the last, returns the logits after its last token."""
        clock.reused = len(held.tokens)
        began = time.perf_counter()
        try:
            while True:
                check()
                step = tokens[len(held.tokens) : len(held.tokens) + self._step_tokens]
                logits = self._forward(step)
                clock.evaluated += len(step)
                if len(held.tokens) == len(tokens):
                    return logits
                clock.prompt_ms = (time.perf_counter() - began) * 1000
                yield
        finally:
            clock.prompt_ms = (time.perf_counter() - began) * 1000

    @torch.inference_mode()
    def _forward(self, tokens: list[int]) -> Tensor:
        """The logits (float32) after these tokens, which follow what is held."""
        held, self._held = self._held, None  # a failure in the middle leaves a cache nobody may use
        assert held is not None  # noqa: S101  (prepared before)
        ids = torch.tensor([tokens], device=self._model.device)
        output = self._model(input_ids=ids, past_key_values=held.cache, use_cache=True, logits_to_keep=1)
        held.tokens += tokens
        self._held = held
        logits: Tensor = output.logits[0, -1].float()
        return logits
