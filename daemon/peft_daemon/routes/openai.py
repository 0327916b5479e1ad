"""OpenAI-compatible ``/v1/completions`` and ``/v1/models``: what the official clients send works unchanged.

``/v1/chat/completions`` is in ``chat``. ``answered`` makes both protocols' answers, whole and in pieces; an
``AnswerWriter`` knows one protocol's forms.

``suffix`` means fill-in-the-middle, and so does a prompt with a model's fill-in-the-middle tokens (``client_prompts``).
The answer is the model's own text, without the post-processing that editors get. ``model`` is a base model's id or an
adapter's name: adapters appear as models. Without one the model that fills in answers ``/v1/completions``, the one for
sentences chats.
"""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from peft_core.api_types import (
    BASE,
    FinishReason,
    Probability,
    SamplingParams,
    Scale,
    Task,
    Temperature,
    Text,
    Timings,
)
from peft_core.errors import InvalidInput
from peft_daemon.adapters.manifest import Manifest
from peft_daemon.completion import client_prompts
from peft_daemon.completion.client_prompts import WrittenHole
from peft_daemon.completion.job import RawRequest
from peft_daemon.completion.model_instance import ModelInstance
from peft_daemon.completion.service import CompletionService
from peft_daemon.engines.base import GenerationChunk, TokenLogprob
from peft_daemon.routes.openapi import ApiRoute
from peft_daemon.routes.responses import END_OF_STREAM, answer, body, event_stream, while_connected

Stop = Annotated[str, Meta(min_length=1, max_length=200)]
StopStrings = Stop | Annotated[list[Stop], Meta(max_length=64)]


class GenerationBody(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that both of OpenAI's protocols have and that mean something here."""

    model: Annotated[str, Meta(max_length=200)] | None = None
    temperature: Temperature | None = None
    """Null: as the protocol's own defaults say."""
    n: Annotated[int, Meta(ge=1, le=1)] | None = 1
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    stop: StopStrings | None = None
    seed: int | None = None
    scale: Scale | None = None
    """Not OpenAI's: how strongly the adapter applies."""


class CompletionsBody(GenerationBody, frozen=True, kw_only=True):
    """The fields of OpenAI's legacy completions; others are ignored, as clients expect."""

    prompt: Text | Annotated[list[Text], Meta(max_length=1)]
    suffix: Text | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=4096)] | None = 16
    top_p: Probability | None = 1.0
    best_of: Annotated[int, Meta(ge=1, le=1)] | None = 1
    echo: bool | None = False
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    user: str | None = None


class Logprobs(msgspec.Struct, frozen=True):
    """Per token, in the legacy format."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class Choice(msgspec.Struct, frozen=True):
    """The one answer."""

    text: str
    index: int = 0
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class Usage(msgspec.Struct, frozen=True):
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer, or one piece of a stream."""

    id: str
    object: str = "text_completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None


class ModelContext(msgspec.Struct, frozen=True):
    """How much a model reads, in llama.cpp's words."""

    n_ctx: int
    """Tokens of prompt and answer together, as it is served."""
    n_ctx_train: int


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """A base model, or an adapter on one."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "peft-daemon"
    root: str
    """The base model."""
    parent: str | None = None
    meta: ModelContext


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """All that ``model`` may name."""

    object: str = "list"
    data: list[ModelCard]


def routes(service: CompletionService) -> list[ApiRoute]:
    """The routes of this protocol."""

    async def completions(request: Request) -> Response:
        asked = await body(request, CompletionsBody)
        model, adapter = service.choose(Task.FILL, asked.model)
        raw = _raw_request(asked, adapter)
        writer = CompletionsWriter(logprobs=bool(raw.logprobs))
        return await answered(request, service, asked, raw, model=model, writer=writer)

    async def models(request: Request) -> Response:
        return answer(ModelList(data=_cards(service)))

    async def model(request: Request) -> Response:
        wanted = request.path_params["model_id"]
        card = next((c for c in _cards(service) if c.id == wanted), None)
        if card is None:
            service.choose(Task.FILL, wanted)  # raises NotFound with the closest names
            raise InvalidInput(f"'{wanted}' is not listed", fix="GET /v1/models lists the names")
        return answer(card)

    return [
        ApiRoute(
            "POST",
            "/v1/completions",
            completions,
            "Continue a text or fill a hole (OpenAI)",
            takes=CompletionsBody,
            gives=CompletionsAnswer,
            streams=CompletionsAnswer,
        ),
        ApiRoute("GET", "/v1/models", models, "List what `model` may name (OpenAI)", gives=ModelList),
        ApiRoute("GET", "/v1/models/{model_id:path}", model, "Describe one of them (OpenAI)", gives=ModelCard),
    ]


def _raw_request(asked: CompletionsBody, adapter: Manifest | None) -> RawRequest:
    if asked.echo:
        raise InvalidInput("echo is not supported", fix="Send echo=false and put the prompt in front yourself")
    prompt = asked.prompt if isinstance(asked.prompt, str) else "".join(asked.prompt)
    if not prompt and not asked.suffix:
        raise InvalidInput("the prompt is empty", fix="Send some text in `prompt`")
    # Editors that know no `suffix` write the hole into the prompt.
    written = None if asked.suffix else client_prompts.parse(prompt)
    hole = WrittenHole(prompt, asked.suffix) if written is None and asked.suffix is not None else written
    return RawRequest(
        prefix=hole.prefix if hole else prompt,
        suffix=hole.suffix if hole else None,
        path=hole.path if hole else None,
        repository=hole.repository if hole else "",
        context=hole.context if hole else (),
        adapter=adapter,
        scale=asked.scale,
        max_tokens=asked.max_tokens or 16,
        sampling=SamplingParams(
            # Editors rely on a server's default: a hole has one best answer.
            temperature=(0.0 if hole else 1.0) if asked.temperature is None else asked.temperature,
            top_p=1.0 if asked.top_p is None else asked.top_p,
            seed=seed_of(asked.seed),
        ),
        stop=stop_strings(asked.stop),
        # logprobs=0 asks for the chosen tokens' own; the engine reports those only together with one alternative.
        logprobs=0 if asked.logprobs is None else max(1, asked.logprobs),
    )


def seed_of(seed: int | None) -> int:
    """The client's seed as one of ours; another one each time where it gives none."""
    return (uuid.uuid4().int if seed is None else seed) % 2**32


def stop_strings(stop: StopStrings | None) -> tuple[str, ...]:
    """The client's stop strings, of which there may be one, many or none."""
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


AnswerHead = dict[str, Any]
"""What every part of an answer begins with: ``id``, ``created`` and ``model``."""


class AnswerWriter(ABC):
    """Writes one answer in the forms of a protocol."""

    route: ClassVar[str]
    """The protocol's name in the metrics."""
    id_prefix: ClassVar[str]

    @abstractmethod
    def whole(
        self, head: AnswerHead, text: str, tokens: Sequence[TokenLogprob], end: GenerationChunk
    ) -> msgspec.Struct:
        """Return the answer; ``end`` is its last chunk."""

    @abstractmethod
    def pieces(self, head: AnswerHead, chunk: GenerationChunk) -> Iterator[msgspec.Struct]:
        """Yield the events of a stream that a chunk makes."""

    @abstractmethod
    def usage(self, head: AnswerHead, timings: Timings) -> msgspec.Struct:
        """Return the event that ends a stream with token counts."""


async def answered(
    request: Request,
    service: CompletionService,
    asked: GenerationBody,
    raw: RawRequest,
    *,
    model: ModelInstance,
    writer: AnswerWriter,
) -> Response:
    """Have ``model`` generate what a client asked for, and answer with it, as a stream if that was asked for."""
    head = {
        "id": f"{writer.id_prefix}-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": asked.model or model.id,
    }
    generated = service.raw(raw, model=model, route=writer.route)
    if asked.stream:
        with_usage = bool((asked.stream_options or {}).get("include_usage"))
        return await event_stream(request, _stream(generated, head, writer, with_usage=with_usage), last=END_OF_STREAM)
    return answer(await while_connected(request, _whole(generated, head, writer)))


async def _whole(
    generated: AsyncGenerator[GenerationChunk, None], head: AnswerHead, writer: AnswerWriter
) -> msgspec.Struct:
    text, tokens = "", list[TokenLogprob]()
    async with aclosing(generated) as chunks:
        async for chunk in chunks:
            text += chunk.text
            tokens += chunk.logprobs
            if chunk.reason is not None:
                return writer.whole(head, text, tokens, chunk)
    raise AssertionError("the last chunk has a reason")


async def _stream(
    generated: AsyncGenerator[GenerationChunk, None], head: AnswerHead, writer: AnswerWriter, *, with_usage: bool
) -> AsyncGenerator[bytes, None]:
    async with aclosing(generated) as chunks:
        async for chunk in chunks:
            for piece in writer.pieces(head, chunk):
                yield msgspec.json.encode(piece)
            if with_usage and chunk.reason is not None:
                yield msgspec.json.encode(writer.usage(head, chunk.timings))


class CompletionsWriter(AnswerWriter):
    """Writes the answer of ``/v1/completions``; ``logprobs``: with the tokens' probabilities."""

    route, id_prefix = "openai", "cmpl"

    def __init__(self, *, logprobs: bool) -> None:
        self._logprobs, self._offset = logprobs, 0

    def whole(
        self, head: AnswerHead, text: str, tokens: Sequence[TokenLogprob], end: GenerationChunk
    ) -> msgspec.Struct:
        """Return the answer; ``end`` is its last chunk."""
        logprobs = _logprobs(tokens, 0) if self._logprobs else None
        choice = Choice(text, 0, logprobs, finish_reason(end.reason))
        return CompletionsAnswer(**head, choices=[choice], usage=usage_of(end.timings))

    def pieces(self, head: AnswerHead, chunk: GenerationChunk) -> Iterator[msgspec.Struct]:
        """Yield one event."""
        logprobs = _logprobs(chunk.logprobs, self._offset) if self._logprobs and chunk.reason is None else None
        self._offset += len(chunk.text)
        yield CompletionsAnswer(**head, choices=[Choice(chunk.text, 0, logprobs, finish_reason(chunk.reason))])

    def usage(self, head: AnswerHead, timings: Timings) -> msgspec.Struct:
        """Return the event that ends a stream with token counts."""
        return CompletionsAnswer(**head, choices=[], usage=usage_of(timings))


def _logprobs(tokens: Sequence[TokenLogprob], offset: int) -> Logprobs:
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return Logprobs(
        tokens=[t.token for t in tokens],
        token_logprobs=[t.logprob for t in tokens],
        top_logprobs=[dict(t.top) for t in tokens],
        text_offset=offsets,
    )


def finish_reason(reason: FinishReason | None) -> str | None:
    """OpenAI's word for the end of an answer."""
    if reason is None:
        return None
    return "length" if reason in (FinishReason.LENGTH, FinishReason.TIMEOUT) else "stop"


def usage_of(timings: Timings) -> Usage:
    """What OpenAI would charge for."""
    read, written = timings.prompt_tokens, timings.decode_tokens
    return Usage(read, written, read + written)


def _cards(service: CompletionService) -> list[ModelCard]:
    def card(name: str, model: ModelInstance, parent: str | None = None) -> ModelCard:
        context = ModelContext(model.context_tokens, model.entry.context_tokens)
        return ModelCard(id=name, created=int(service.started), root=model.id, parent=parent, meta=context)

    first = service.models[Task.FILL]
    by_id = {model.id: model for model in service.distinct_models}
    cards = [card(model.id, model) for model in service.distinct_models]
    for name, base in ((BASE, first.id), *((adapter.name, adapter.base) for adapter in service.adapters())):
        model = by_id.get(base, first)
        cards.append(card(name, model, model.id))
    return cards
