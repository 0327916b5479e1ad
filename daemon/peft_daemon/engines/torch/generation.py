"""Generate text with a model in memory: the decoding loop, sampling, and the text of an answer.

One thread works on one sequence at a time. It reads the part of the prompt that is not in the key-value cache, then
writes token by token. After each step it checks whether the request was cancelled or its time is up. The cache of the
previous request is used again as far as prompt, adapter and scale are the same; an adapter's virtual tokens come first
in it. ``encoder_decoder`` has what is different where an encoder reads the prompt.
"""

from __future__ import annotations

import codecs
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peft_core.api_types import FinishReason, Timings
from peft_core.errors import InvalidInput
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines.base import GenerationChunk, GenerationRequest, TokenLogprob
from peft_daemon.engines.torch.adapters import AdapterCache, LoadedAdapter
from peft_daemon.engines.torch.base_model import LoadedBase
from peft_daemon.engines.torch.tokenizer import ByteVocabulary, LiteralTokenizer

if TYPE_CHECKING:
    from transformers import DynamicCache

ACCELERATOR_STEPS = 16
"""How many times more tokens an accelerator reads per step than a CPU, in about the same time."""


AnswerPart = tuple[str, tuple[TokenLogprob, ...]]


class AnswerText:
    """The text of one answer, made of tokens: whole characters only, nothing at or after a stop string."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._given = 0
        """Number of characters returned so far."""
        self._logprobs: deque[tuple[int, TokenLogprob]] = deque()
        """Logprobs of tokens that were not returned yet, each with the position at which the token begins."""
        self.stopped = False

    def add(self, text: bytes, logprob: TokenLogprob | None = None) -> AnswerPart:
        """Add a token and return the text that is certain now; ``stopped`` is set at a stop string."""
        if logprob is not None:
            self._logprobs.append((self._given + len(self._held), logprob))
        self._held += self._decoder.decode(text)
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._give(min(found))
        return self._give(len(self._held) - self._undecided())

    def rest(self) -> AnswerPart:
        """Return the text that was held back; call it after the last token.

        An incomplete character is dropped.
        """
        return ("", ()) if self.stopped else self._give(len(self._held))

    def _undecided(self) -> int:
        """Return the length of the longest end of the text that may be the start of a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        lengths = range(min(longest, len(self._held)), 0, -1)
        return next((n for n in lengths if any(stop.startswith(self._held[-n:]) for stop in self._stops)), 0)

    def _give(self, count: int) -> AnswerPart:
        text, self._held = self._held[:count], self._held[count:]
        self._given += count
        known = []
        while text and self._logprobs and self._logprobs[0][0] < self._given:
            known.append(self._logprobs.popleft()[1])
        return text, tuple(known)


class Sampler:
    """Chooses the tokens of one request, greedily or by nucleus sampling; the same seed gives the same choices."""

    def __init__(self, request: GenerationRequest, vocabulary: ByteVocabulary) -> None:
        self._temperature, self._top_p = request.sampling.temperature, request.sampling.top_p
        self._alternatives, self._confidence = request.logprobs, request.confidence
        self._vocabulary = vocabulary
        self._generator = torch.Generator().manual_seed(request.sampling.seed)
        self._to_come = request.begins_with.encode()
        """The rest of the text that the answer must begin with."""

    def pick(self, logits: Tensor) -> int:
        """Choose the next token; ``logits`` are float32, one per row of the model's head."""
        if self._to_come and (allowed := self._vocabulary.beginning(self._to_come)):
            index = torch.tensor(allowed, device=logits.device)
            constrained = torch.full_like(logits, -torch.inf)
            constrained[index] = logits[index]
            logits = constrained
        token = int(logits.argmax()) if self._temperature == 0 else self._sample(logits)
        self._to_come = self._to_come[len(self._vocabulary.text(token)) :]
        return token

    def logprob(self, logits: Tensor, token: int) -> TokenLogprob | None:
        """Return the model's own probability of the token (before sampling), if the request asked for it."""
        if not self._alternatives:
            own = float(logits[token] - logits.logsumexp(-1)) if self._confidence else None
            return None if own is None else TokenLogprob(self._text(token), own)
        logprobs = logits.log_softmax(-1)
        top = logprobs.topk(min(self._alternatives, len(logprobs)))
        alternatives = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return TokenLogprob(
            self._text(token),
            float(logprobs[token]),
            tuple((self._text(other), value) for other, value in alternatives),
        )

    def _text(self, token: int) -> str:
        return self._vocabulary.text(token).decode(errors="replace")

    def _sample(self, logits: Tensor) -> int:
        """Sample from the smallest set of tokens with ``top_p`` of the probability (arXiv 1904.09751)."""
        probabilities, order = (logits / self._temperature).softmax(-1).cpu().sort(descending=True)
        before = probabilities.cumsum(-1) - probabilities
        probabilities[before >= self._top_p] = 0
        return int(order[torch.multinomial(probabilities, 1, generator=self._generator)])


@dataclass
class _KeyValueCache:
    """The key-value cache and the tokens and adapter that it was computed for."""

    weights: tuple[str, float] | None
    """Digest and scale of the adapter; None for the base alone."""
    virtual: int
    cache: DynamicCache
    tokens: list[int] = field(default_factory=list)

    def cut(self, length: int) -> None:
        """Drop all but the first ``length`` tokens."""
        self.cache.crop(self.virtual + length - self.cache.get_seq_length())
        del self.tokens[length:]


@dataclass
class GenerationClock:
    """Measures where the time of one request goes, in milliseconds."""

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


class GenerationInterrupted(Exception):
    """The request was cancelled or has reached a limit."""

    def __init__(self, reason: FinishReason) -> None:
        self.reason = reason
        super().__init__(reason)


def prompt_too_long(tokens: int, context_tokens: int) -> InvalidInput:
    """Return the error for a prompt of ``tokens`` tokens that does not fit."""
    return InvalidInput(
        "the prompt does not fit into the model's context",
        why=f"it has {tokens} tokens, the context {context_tokens}",
        fix="Send less text or set `context_tokens` higher",
    )


def applied_weights(lease: AdapterLease | None) -> tuple[str, float] | None:
    """Return what tells apart the weights that requests are computed with; None for the base alone."""
    return None if lease is None or lease.scale == 0 else (lease.digest, lease.scale)


class TextGenerator:
    """Generates text with one decoder-only base model and its adapters."""

    def __init__(self, base: LoadedBase, shelf: AdapterCache, *, context_tokens: int, step_tokens: int) -> None:
        self._model, self._shelf = base.model, shelf
        self._vocabulary = ByteVocabulary(base.tokenizer)
        self.tokenizer = LiteralTokenizer(base.tokenizer)
        self._context_tokens = context_tokens
        self._on_cpu = base.model.device.type == "cpu"
        self._step_tokens = step_tokens if self._on_cpu else step_tokens * ACCELERATOR_STEPS
        self._held: _KeyValueCache | None = None

    def generate(self, request: GenerationRequest, cancelled: Callable[[], bool]) -> Iterator[GenerationChunk]:
        """Yield the chunks of one answer, as ``engines.base.Engine`` describes.

        Raises InvalidInput for a prompt that does not fit, or an adapter or scale that cannot be served.
        """
        clock = GenerationClock()
        answer = AnswerText(request.stop)

        def check() -> None:
            if cancelled():
                raise GenerationInterrupted(FinishReason.CANCELLED)
            if request.time_budget_ms is not None and clock.elapsed_ms >= request.time_budget_ms:
                raise GenerationInterrupted(FinishReason.TIMEOUT)

        try:
            for part in self._parts(request, answer, clock, check):
                if part is None:
                    yield GenerationChunk(timings=clock.timings())
                elif part[0]:
                    yield GenerationChunk(*part, clock.timings())
            reason = FinishReason.STOP
        except GenerationInterrupted as interrupted:
            reason = interrupted.reason
        rest = answer.rest()
        if rest[0] and reason is not FinishReason.CANCELLED:
            yield GenerationChunk(*rest, clock.timings())
        yield GenerationChunk(reason=reason, timings=clock.timings())

    def _parts(
        self, request: GenerationRequest, answer: AnswerText, clock: GenerationClock, check: Callable[[], None]
    ) -> Iterator[AnswerPart | None]:
        """Yield None after each step of reading the prompt, then text as it becomes certain.

        Returns when the model ends or a stop string is found, otherwise raises GenerationInterrupted.
        """
        check()  # it may have waited for others: nothing is loaded for a request that was given up
        tokens = self._encode(request)
        clock.prompt_tokens = len(tokens)
        adapter = self._shelf.activate(request.adapter)
        room = self._room(tokens, adapter)
        if not tokens:
            return
        logits = yield from self._read(request, tokens, adapter, clock, check)
        sampler = Sampler(request, self._vocabulary)
        for written in range(1, min(request.max_tokens, room + 1) + 1):
            began = time.perf_counter()
            token = sampler.pick(logits)
            clock.first_token_ms = clock.first_token_ms or clock.elapsed_ms
            clock.decode_tokens = written
            if (text := self._text(token, written)) is None:
                return
            yield answer.add(text, sampler.logprob(logits, token))
            if answer.stopped:
                return
            check()
            if written < min(request.max_tokens, room + 1):
                logits = self._forward([token])
                clock.decode_ms += (time.perf_counter() - began) * 1000
        raise GenerationInterrupted(FinishReason.LENGTH)

    def _encode(self, request: GenerationRequest) -> list[int]:
        return self.tokenizer.encode_prompt(request.prompt)

    def _room(self, tokens: list[int], adapter: LoadedAdapter) -> int:
        """Return how many tokens may be read after the prompt's; raises InvalidInput for a prompt that does not fit."""
        room = self._context_tokens - adapter.virtual_tokens - len(tokens)
        if room < 0:
            raise prompt_too_long(len(tokens), self._context_tokens - adapter.virtual_tokens)
        return room

    def _text(self, token: int, written: int) -> bytes | None:
        """Return the text of the answer's token number ``written`` (from 1); None if it ends the answer."""
        return None if token in self._vocabulary.ends else self._vocabulary.text(token)

    def _prepare(self, tokens: list[int], lease: AdapterLease | None, adapter: LoadedAdapter) -> _KeyValueCache:
        """Return the cache, cut to the prompt's first tokens that it has; the last token is always read again."""
        weights = applied_weights(lease)
        held = self._held
        if held is None or held.weights != weights:
            held = self._held = _KeyValueCache(weights, adapter.virtual_tokens, adapter.empty_cache())
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(held.tokens, tokens, strict=False)))
        held.cut(min(shared, len(tokens) - 1))
        return held

    def _read(
        self,
        request: GenerationRequest,
        tokens: list[int],
        adapter: LoadedAdapter,
        clock: GenerationClock,
        check: Callable[[], None],
    ) -> Generator[None, None, Tensor]:
        """Read what is new of the prompt, in steps; yields after each step but the last.

        Returns the logits of the next token.
        """
        held = self._prepare(tokens, request.adapter, adapter)
        step_tokens = request.step_tokens if self._on_cpu and request.step_tokens else self._step_tokens
        clock.reused = len(held.tokens)
        began = time.perf_counter()
        try:
            while True:
                check()
                step = tokens[len(held.tokens) : len(held.tokens) + step_tokens]
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
        """Compute the logits (float32) after these tokens, which follow those in the cache."""
        held, self._held = self._held, None  # after an error the cache must not be used
        assert held is not None  # noqa: S101  (prepared before)
        ids = torch.tensor([tokens], device=self._model.device)
        output = self._model(input_ids=ids, past_key_values=held.cache, use_cache=True, logits_to_keep=1)
        held.tokens += tokens
        self._held = held
        logits: Tensor = output.logits[0, -1].float()
        return logits
