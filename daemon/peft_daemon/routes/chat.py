"""OpenAI-compatible ``/v1/chat/completions``: a chat with a base model or an adapter, written in its chat format.

The answer is the model's own text. Fields of OpenAI's that mean nothing here (tools, response formats, penalties) are
ignored, as clients expect; images are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from peft_core.api_types import Probability, SamplingParams, Task, Text, Timings
from peft_core.errors import InvalidInput
from peft_daemon.adapters.manifest import Manifest
from peft_daemon.completion.chat import ChatFormat, ChatMessage, chat_prompt
from peft_daemon.completion.job import RawRequest
from peft_daemon.completion.service import CompletionService
from peft_daemon.engines.base import GenerationChunk, TokenLogprob
from peft_daemon.routes.openai import (
    AnswerHead,
    AnswerWriter,
    GenerationBody,
    Usage,
    answered,
    finish_reason,
    seed_of,
    stop_strings,
    usage_of,
)
from peft_daemon.routes.openapi import ApiRoute
from peft_daemon.routes.responses import body

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


class ChatBody(GenerationBody, frozen=True, kw_only=True):
    """The fields of OpenAI's chat completions that mean something here."""

    messages: Messages
    max_completion_tokens: AnswerTokens | None = None
    max_tokens: AnswerTokens | None = None
    """The older name."""
    n_predict: AnswerTokens | None = None
    """llama.cpp's name; 0 only reads the prompt."""
    top_p: Probability | None = None

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


class ChatWriter(AnswerWriter):
    """Writes the answer of ``/v1/chat/completions``."""

    route, id_prefix = "chat", "chatcmpl"

    def __init__(self) -> None:
        self._begun = False

    def whole(
        self, head: AnswerHead, text: str, tokens: Sequence[TokenLogprob], end: GenerationChunk
    ) -> msgspec.Struct:
        """Return the answer; ``end`` is its last chunk."""
        choice = ChatChoice(message=AnswerMessage(text), finish_reason=finish_reason(end.reason))
        return ChatAnswer(**head, choices=[choice], usage=usage_of(end.timings))

    def pieces(self, head: AnswerHead, chunk: GenerationChunk) -> Iterator[msgspec.Struct]:
        """Yield the events of a chunk; the answer's role comes first."""
        if not self._begun:
            # Not before there is an answer: a request that cannot be served gets its status.
            self._begun = True
            yield self._piece(head, MessageDelta("assistant", ""))
        delta = MessageDelta(content=chunk.text) if chunk.reason is None else MessageDelta()
        yield self._piece(head, delta, finish_reason(chunk.reason))

    def usage(self, head: AnswerHead, timings: Timings) -> msgspec.Struct:
        """Return the event that ends a stream with token counts."""
        return ChatPiece(**head, choices=[], usage=usage_of(timings))

    @staticmethod
    def _piece(head: AnswerHead, delta: MessageDelta, reason: str | None = None) -> ChatPiece:
        return ChatPiece(**head, choices=[DeltaChoice(delta=delta, finish_reason=reason)])


def routes(service: CompletionService) -> list[ApiRoute]:
    """The routes of this protocol."""

    async def chat(request: Request) -> Response:
        asked = await body(request, ChatBody)
        model, adapter = service.choose(Task.INTENT, asked.model)
        raw = _raw_request(asked, model.chat_format, adapter)
        return await answered(request, service, asked, raw, model=model, writer=ChatWriter())

    return [
        ApiRoute(
            "POST",
            "/v1/chat/completions",
            chat,
            "Answer a chat (OpenAI)",
            takes=ChatBody,
            gives=ChatAnswer,
            streams=ChatPiece,
        )
    ]


def _raw_request(asked: ChatBody, form: ChatFormat, adapter: Manifest | None) -> RawRequest:
    own = form.sampling
    return RawRequest(
        chat=chat_prompt([each.read() for each in asked.messages], form),
        max_tokens=asked.answer_tokens,
        adapter=adapter,
        scale=asked.scale,
        sampling=SamplingParams(
            temperature=own.temperature if asked.temperature is None else asked.temperature,
            top_p=own.top_p if asked.top_p is None else asked.top_p,
            seed=seed_of(asked.seed),
        ),
        stop=(*form.stop, *stop_strings(asked.stop)),
    )
