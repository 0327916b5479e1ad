"""Requests of other tools' protocols: the model's own text, without the post-processing that editors get.

Such a request continues a text, fills a hole or answers a chat. ``build`` makes the engine's request of it, within the
model's context. Does not cover who is asked and for how long: see ``service``.
"""

from __future__ import annotations

from dataclasses import dataclass

from peft_core.api_types import ContextChunk, SamplingParams
from peft_core.code.document import Document
from peft_core.errors import InvalidInput
from peft_core.privacy.values import masked
from peft_daemon.adapters.manifest import AdapterLease, Manifest
from peft_daemon.completion import prompt
from peft_daemon.completion.formats import PromptFormat
from peft_daemon.completion.prompt import RemoteTokenizer
from peft_daemon.engines.base import GenerationRequest, Prompt, Segment

MAX_ANSWER_SHARE = 0.5
"""Part of the context that the answer to a hole may take; some clients ask for as many tokens as there are."""


@dataclass(frozen=True, kw_only=True)
class RawRequest:
    """A generation without post-processing, as other tools' protocols ask for it."""

    prefix: str = ""
    suffix: str | None = None
    """None: continue ``prefix`` as it stands; else fill the hole between the two."""
    chat: Prompt = ()
    """A chat, written in the model's format; there is no prefix or suffix then."""
    max_tokens: int | None
    """0: only read the prompt. None, of a chat: as many as fit."""
    adapter: Manifest | None = None
    scale: float | None = None
    context: tuple[ContextChunk, ...] = ()
    path: str | None = None
    repository: str = ""
    sampling: SamplingParams = SamplingParams()
    stop: tuple[str, ...] = ()
    decode_budget_ms: int | None = None
    """Counted from the first token, so reading a long prompt does not use it up; holds once a line is complete."""
    logprobs: int = 0


@dataclass(frozen=True)
class RawTarget:
    """What raw requests are answered with."""

    tokenizer: RemoteTokenizer
    format: PromptFormat
    """Of holes."""
    context_tokens: int


async def build(asked: RawRequest, target: RawTarget, adapter: AdapterLease | None) -> GenerationRequest:
    """Return the engine's request; raises InvalidInput when the prompt cannot fit, and what the engine raises."""
    stop, max_tokens, held = target.format.stop, asked.max_tokens or 0, ""
    segments: Prompt = (Segment(masked(asked.prefix)),)
    if asked.chat:
        segments, stop = asked.chat, ()
        room = await _room_for_answer(segments, target)
        max_tokens = room if asked.max_tokens is None else min(asked.max_tokens, room)
    elif asked.suffix is not None:
        max_tokens = min(max_tokens, int(target.context_tokens * MAX_ANSWER_SHARE))
        segments, held = await prompt.build_for_engine(
            target.tokenizer,
            Document.normalized(asked.prefix, asked.suffix, path=asked.path),
            target.format,
            prompt.prompt_budget(target.context_tokens, max(1, max_tokens)),
            context=asked.context,
            repository=asked.repository,
        )
    return GenerationRequest(
        prompt=segments,
        begins_with=held,
        max_tokens=max_tokens,
        adapter=adapter,
        stop=(*stop, *asked.stop),
        sampling=asked.sampling,
        logprobs=asked.logprobs,
    )


async def _room_for_answer(segments: Prompt, target: RawTarget) -> int:
    """Tokens that the prompt leaves of the context; raises InvalidInput when it leaves none."""
    counts = await target.tokenizer.count_tokens([each.text for each in segments if not each.special])
    tokens = sum(counts) + sum(each.special for each in segments)
    room = target.context_tokens - tokens - prompt.MARGIN_TOKENS
    if room < 1:
        raise InvalidInput(
            # Clients look for these words to shorten a chat.
            f"this model's maximum context length is {target.context_tokens} tokens",
            why=f"the messages have {tokens}",
            fix="Send fewer or shorter messages, or set `context_tokens` higher",
        )
    return room
