"""OpenAI-compatible ``/v1/chat/completions``: a chat with the base model or an adapter, written in its chat format.

The answer is the model's own text. Fields of OpenAI's that mean nothing here (tools, response formats, penalties) are
ignored, as clients expect; images are refused.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from peft_core.api_types import Probability, SamplingParams, Scale, Temperature, Text
from peft_core.errors import InvalidInput
from peft_daemon.completion.chat import ChatMessage, chat_prompt
from peft_daemon.completion.job import RawRequest
from peft_daemon.completion.service import CompletionService
from peft_daemon.routes.openai import (
    StopStrings,
    Usage,
    finish_reason,
    named_adapter,
    seed_of,
    stop_strings,
    usage_of,
)
from peft_daemon.routes.responses import answer, body, event_stream, while_connected

AnswerTokens = Annotated[int, Meta(ge=-1)]
"""Cut to what the context has room for; -1: all of it."""


class ContentPart(msgspec.Struct, frozen=True):
    """A part of a message; only text can be read."""

    type: str
    text: Text | None = None


class MessageBody(msgspec.Struct, frozen=True):
    """A message as OpenAI's clients send it."""

    role: Annotated[str, Meta(max_length=100)]
    content: Text | list[ContentPart] | None = None

    def read(self) -> ChatMessage:
        """The message; raises InvalidInput for one with an image or sound."""
        if isinstance(self.content, str) or self.content is None:
            return ChatMessage(self.role, self.content or "")
        other = next((part.type for part in self.content if part.text is None), None)
        if other is not None:
            raise InvalidInput(f"a message has a part of type '{other[:100]}'", fix="Send text only")
        return ChatMessage(self.role, "".join(part.text or "" for part in self.content))


Messages = Annotated[list[MessageBody], Meta(min_length=1, max_length=2000)]


class ChatBody(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of OpenAI's chat completions that mean something here."""

    messages: Messages
    model: Annotated[str, Meta(max_length=200)] | None = None
    max_completion_tokens: AnswerTokens | None = None
    max_tokens: AnswerTokens | None = None
    """The older name."""
    n_predict: AnswerTokens | None = None
    """llama.cpp's name; 0 only reads the prompt."""
    temperature: Temperature | None = None
    top_p: Probability | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = 1
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    stop: StopStrings | None = None
    seed: int | None = None
    scale: Scale | None = None
    """Not OpenAI's: how strongly the adapter applies."""

    @property
    def answer_tokens(self) -> int | None:
        """The longest answer; None where it is not limited."""
        given = (self.max_completion_tokens, self.max_tokens, self.n_predict)
        limit = next((each for each in given if each is not None), -1)
        return None if limit < 0 else limit


class AnswerMessage(msgspec.Struct, frozen=True):
    """The answer's turn."""

    content: str
    role: Literal["assistant"] = "assistant"


class MessageDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a piece of a stream adds to the answer's turn."""

    role: str | None = None
    content: str | None = None


class ChatChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The one answer."""

    index: int = 0
    message: AnswerMessage
    logprobs: None = None
    finish_reason: str | None


class DeltaChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of the one answer."""

    index: int = 0
    delta: MessageDelta
    logprobs: None = None
    finish_reason: str | None = None


class ChatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ChatPiece(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a stream."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    choices: list[DeltaChoice]
    usage: Usage | None = None


def routes(service: CompletionService) -> list[Route]:
    """The routes of this protocol."""

    async def chat(request: Request) -> Response:
        asked = await body(request, ChatBody)
        raw = _raw_request(service, asked)
        head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": asked.model or service.model_id,
        }
        if asked.stream:
            with_usage = bool((asked.stream_options or {}).get("include_usage"))
            return await event_stream(request, _stream(service, raw, head, with_usage=with_usage), last=b"[DONE]")
        return answer(await while_connected(request, _whole(service, raw, head)))

    return [Route("/v1/chat/completions", chat, methods=["POST"])]


def _raw_request(service: CompletionService, asked: ChatBody) -> RawRequest:
    form = service.chat_format
    own = form.sampling
    return RawRequest(
        chat=chat_prompt([each.read() for each in asked.messages], form),
        max_tokens=asked.answer_tokens,
        adapter=named_adapter(service, asked.model),
        scale=asked.scale,
        sampling=SamplingParams(
            temperature=own.temperature if asked.temperature is None else asked.temperature,
            top_p=own.top_p if asked.top_p is None else asked.top_p,
            seed=seed_of(asked.seed),
        ),
        stop=(*form.stop, *stop_strings(asked.stop)),
    )


async def _whole(service: CompletionService, raw: RawRequest, head: dict[str, Any]) -> ChatAnswer:
    text = ""
    async with aclosing(service.raw(raw, route="chat")) as chunks:
        async for chunk in chunks:
            text += chunk.text
            if chunk.reason is not None:
                choice = ChatChoice(message=AnswerMessage(text), finish_reason=finish_reason(chunk.reason))
                return ChatAnswer(**head, choices=[choice], usage=usage_of(chunk.timings))
    raise AssertionError("the last chunk has a reason")


async def _stream(
    service: CompletionService, raw: RawRequest, head: dict[str, Any], *, with_usage: bool
) -> AsyncGenerator[bytes, None]:
    def piece(delta: MessageDelta, reason: str | None = None) -> bytes:
        return msgspec.json.encode(ChatPiece(**head, choices=[DeltaChoice(delta=delta, finish_reason=reason)]))

    begun = False
    async with aclosing(service.raw(raw, route="chat")) as chunks:
        async for chunk in chunks:
            if not begun:
                # Not before there is an answer: a request that cannot be served gets its status.
                begun = True
                yield piece(MessageDelta("assistant", ""))
            if chunk.reason is None:
                yield piece(MessageDelta(content=chunk.text))
                continue
            yield piece(MessageDelta(), finish_reason(chunk.reason))
            if with_usage:
                yield msgspec.json.encode(ChatPiece(**head, choices=[], usage=usage_of(chunk.timings)))
