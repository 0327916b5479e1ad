"""What llama-server understands and answers: the body of a generation, and the events of its stream. Sends nothing.

Both engines that speak to one use it: ``llamacpp``, whose server is a child process, and ``upstream``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from peft_core.api_types import FinishReason, Timings
from peft_daemon.engines.base import GenerationRequest, TokenLogprob


class LlamaEvent(NamedTuple):
    """One event of a stream."""

    text: str
    tokens: Sequence[int]
    """Ids of the answer's tokens, where the server sends them."""
    logprobs: tuple[TokenLogprob, ...]
    reason: FinishReason | None
    """Why the answer is over; None while it is not."""
    timings: Timings | None
    """What was read and written so far, as the server counts it; None: it did not say."""
    error: str


def generation_body(request: GenerationRequest, prompt: list[int] | str) -> dict[str, Any]:
    """Return the body of a streamed ``/completion``."""
    return {
        "prompt": prompt,
        "n_predict": request.max_tokens,
        "temperature": request.sampling.temperature,
        "top_p": request.sampling.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "seed": request.sampling.seed,
        "stop": list(request.stop),
        "n_probs": request.logprobs or int(request.confidence),
        "grammar": grammar_of_beginning(request.begins_with),
        "cache_prompt": True,
        "stream": True,
        "timings_per_token": True,
    }


def grammar_of_beginning(text: str) -> str:
    """Return a GBNF grammar of all answers that begin with ``text``; empty for no constraint."""
    if not text:
        return ""
    literal = "".join(f"\\U{ord(character):08X}" for character in text)
    return f'root ::= "{literal}" [\\U00000000-\\U0010FFFF]*'


def decode_event(data: bytes) -> LlamaEvent:
    """Return the event in ``data``; raises ValueError for what is none."""
    # What cuts a character in two is shown as damaged text, not refused as no JSON.
    raw = _decode_event(data.decode(errors="replace"))
    ended = FinishReason.LENGTH if raw.stop_type == "limit" else FinishReason.STOP
    return LlamaEvent(
        text=raw.content,
        tokens=raw.tokens,
        logprobs=tuple(
            TokenLogprob(each.token, each.logprob, tuple((top.token, top.logprob) for top in each.top_logprobs))
            for each in raw.completion_probabilities
        ),
        reason=ended if raw.stop else None,
        timings=raw.work(),
        error="" if raw.error is None else error_message(raw.error),
    )


def decode_timings(answer: object) -> Timings:
    """Return the timings of an answer that is no stream; raises ValueError where there are none."""
    return msgspec.convert(answer, _RawAnswer).timings.converted()


def error_message(error: object) -> str:
    """Return the message of an answer's ``error``, which is one text or an object."""
    return str((isinstance(error, dict) and error.get("message")) or error)


class _RawTimings(msgspec.Struct):
    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0

    def converted(self) -> Timings:
        return Timings(
            prompt_evaluated=self.prompt_n,
            prompt_reused=self.cache_n,
            prompt_ms=self.prompt_ms,
            decode_tokens=self.predicted_n,
            decode_ms=self.predicted_ms,
        )


class _RawProgress(msgspec.Struct):
    """How far a prompt was read; ``processed`` has the tokens in it that were cached."""

    cache: int = 0
    processed: int = 0


class _RawAlternative(msgspec.Struct):
    token: str
    logprob: float


class _RawProbability(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[_RawAlternative] = []


class _RawEvent(msgspec.Struct):
    content: str = ""
    tokens: list[int] = []
    stop: bool = False
    stop_type: str = ""
    timings: _RawTimings | None = None
    prompt_progress: _RawProgress | None = None
    completion_probabilities: list[_RawProbability] = []
    error: Any = None

    def work(self) -> Timings | None:
        if self.timings is not None:
            return self.timings.converted()
        if (progress := self.prompt_progress) is not None:
            return Timings(prompt_evaluated=progress.processed - progress.cache, prompt_reused=progress.cache)
        return None


class _RawAnswer(msgspec.Struct):
    timings: _RawTimings


_decode_event = msgspec.json.Decoder(_RawEvent).decode
