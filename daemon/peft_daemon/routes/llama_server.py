"""The routes of llama.cpp's server that editors made for it ask (llama.vscode, llama.vim).

``/infill`` has the same fields and the same stream, and is answered by the adapter in use. ``/props``, ``/tokenize``,
``/detokenize`` and ``/apply-template`` let clients count what they send. A field that is null counts as left out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from peft_core import __version__
from peft_core.api_types import ContextChunk, FinishReason, SamplingParams, Task, Temperature, Text
from peft_core.errors import error_line
from peft_core.paths import MAX_PATH_CHARS
from peft_core.status_types import EngineState
from peft_daemon.adapters.manifest import Manifest
from peft_daemon.completion.chat import chat_prompt
from peft_daemon.completion.job import RawRequest
from peft_daemon.completion.model_instance import ModelInstance
from peft_daemon.completion.service import CompletionService
from peft_daemon.engines.base import GenerationChunk
from peft_daemon.routes.chat import Messages
from peft_daemon.routes.openapi import ApiRoute
from peft_daemon.routes.responses import answer, body, event_stream, while_connected

DEFAULT_TOKENS = 128
"""Longest answer where a client sets no limit."""
UNNAMED = "tmp"
"""Path of a piece of another file that has none, as llama.cpp shows it to the model."""


class ExtraChunk(msgspec.Struct, frozen=True):
    """A piece of another file."""

    text: Text
    filename: Annotated[str, Meta(max_length=MAX_PATH_CHARS)] | None = UNNAMED


class InfillBody(msgspec.Struct, frozen=True, kw_only=True):
    """llama.cpp's fields; sampling details it knows and we do not are ignored, as its clients send many."""

    input_prefix: Text | None = ""
    input_suffix: Text | None = ""
    input_extra: Annotated[list[ExtraChunk], Meta(max_length=256)] | None = []
    prompt: Text | None = ""
    """The current line up to the cursor."""
    n_predict: Annotated[int, Meta(ge=-1, le=4096)] | None = DEFAULT_TOKENS
    """-1: the default."""
    temperature: Temperature | None = 0.0
    top_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = 1.0
    seed: int | None = 0
    stop: Annotated[list[str], Meta(max_length=16)] | None = []
    stream: bool | None = False
    t_max_predict_ms: Annotated[int, Meta(ge=0, le=600_000)] | None = 0
    """Ends an answer that has at least one complete line."""
    response_fields: Annotated[list[str], Meta(max_length=64)] | None = None
    """Keys of the last answer that are sent, those of nested objects as ``timings/prompt_n``; null: all."""
    id_slot: int | None = -1
    model: str | None = None


class TokenizeBody(msgspec.Struct, frozen=True, kw_only=True):
    """What is tokenized, and how."""

    content: Text
    model: str | None = None
    """Whose tokenizer; null: that of the model that fills in."""
    parse_special: bool | None = None
    """Whether control tokens are recognised in the text; null: they are."""
    add_special: Literal[False] | None = None
    with_pieces: Literal[False] | None = None


class DetokenizeBody(msgspec.Struct, frozen=True):
    """Token ids."""

    tokens: Annotated[list[Annotated[int, Meta(ge=0, lt=2**31)]], Meta(max_length=1_000_000)]
    model: str | None = None


class ApplyTemplateBody(msgspec.Struct, frozen=True):
    """A chat."""

    messages: Messages
    model: str | None = None
    """Whose chat format; null: that of the model that answers chats."""


class InfillTimings(msgspec.Struct, frozen=True, kw_only=True):
    """Times and token counts of an answer."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float


class InfillAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, or one piece of a stream, which has the first two fields only.

    With ``response_fields`` it has those fields, under the paths that were asked for.
    """

    content: str | UnsetType = UNSET
    stop: bool | UnsetType = UNSET
    stop_type: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    tokens_predicted: int | UnsetType = UNSET
    tokens_evaluated: int | UnsetType = UNSET
    tokens_cached: int | UnsetType = UNSET
    truncated: bool | UnsetType = UNSET
    timings: InfillTimings | UnsetType = UNSET


class HealthError(msgspec.Struct, frozen=True):
    """Why nothing can be answered now."""

    message: str
    code: int = 503
    type: str = "unavailable_error"


class HealthAnswer(msgspec.Struct, frozen=True):
    """Whether completions are answered; ``error`` where they are not."""

    status: str
    error: HealthError | UnsetType = UNSET


class GenerationSettings(msgspec.Struct, frozen=True):
    """How much the model reads."""

    n_ctx: int


class Props(msgspec.Struct, frozen=True, kw_only=True):
    """What is served."""

    default_generation_settings: GenerationSettings
    total_slots: int
    model_alias: str
    build_info: str


class TokenizeAnswer(msgspec.Struct, frozen=True):
    """Token ids."""

    tokens: list[int]


class DetokenizeAnswer(msgspec.Struct, frozen=True):
    """The text of tokens."""

    content: str


class ApplyTemplateAnswer(msgspec.Struct, frozen=True):
    """The messages as the model reads them."""

    prompt: str


def routes(service: CompletionService) -> list[ApiRoute]:
    """The routes of this protocol."""

    async def infill(request: Request) -> Response:
        asked = await body(request, InfillBody)
        model, adapter = service.choose(Task.FILL, asked.model)
        if not asked.model or asked.model == model.id:
            adapter = model.adapter_in_use(Task.FILL, None)
        generated = service.raw(_raw_request(asked, adapter), model=model, route="infill")
        if asked.stream:
            return await event_stream(request, _stream(generated, model, asked.response_fields))
        return answer(await while_connected(request, _whole(generated, model, asked.response_fields)))

    async def health(request: Request) -> Response:
        engine = service.models[Task.FILL].engine.status()
        if engine.state is EngineState.UNLOADED or (engine.state is EngineState.READY and engine.responding):
            return answer(HealthAnswer("ok"))
        loads = engine.state is EngineState.STARTING and not engine.last_error
        hangs = engine.state is EngineState.READY
        failure = error_line(engine.last_error, engine.fix)
        message = "Loading model" if loads else "The engine does not answer" if hangs else failure
        error = HealthError(message or f"The engine is {engine.state}")
        return answer(HealthAnswer("loading" if loads else "error", error), 503)

    async def props(request: Request) -> Response:
        model = service.models[Task.FILL]
        settings = GenerationSettings(model.context_tokens)
        return answer(
            Props(
                default_generation_settings=settings,
                total_slots=model.slots,
                model_alias=model.id,
                build_info=f"peft-daemon {__version__}",
            )
        )

    async def tokenize(request: Request) -> Response:
        asked = await body(request, TokenizeBody)
        special = asked.parse_special is not False
        model, _ = service.choose(Task.FILL, asked.model)
        tokens = await while_connected(request, model.tokenizer.tokenize(asked.content, special=special))
        return answer(TokenizeAnswer(tokens))

    async def detokenize(request: Request) -> Response:
        asked = await body(request, DetokenizeBody)
        model, _ = service.choose(Task.FILL, asked.model)
        return answer(DetokenizeAnswer(await while_connected(request, model.tokenizer.detokenize(asked.tokens))))

    async def apply_template(request: Request) -> Response:
        asked = await body(request, ApplyTemplateBody)
        model, _ = service.choose(Task.INTENT, asked.model)
        prompt = chat_prompt([each.read() for each in asked.messages], model.chat_format)
        return answer(ApplyTemplateAnswer("".join(segment.text for segment in prompt)))

    return [
        ApiRoute(
            "POST",
            "/infill",
            infill,
            "Fill a hole (llama.cpp)",
            takes=InfillBody,
            gives=InfillAnswer,
            streams=InfillAnswer,
        ),
        ApiRoute(
            "GET",
            "/health",
            health,
            "Tell whether completions are answered (llama.cpp)",
            gives=HealthAnswer,
            failure=(503, HealthAnswer),
            is_open=True,
        ),
        ApiRoute("GET", "/props", props, "Tell what is served (llama.cpp)", gives=Props),
        ApiRoute(
            "POST",
            "/tokenize",
            tokenize,
            "Give the tokens of a text (llama.cpp)",
            takes=TokenizeBody,
            gives=TokenizeAnswer,
        ),
        ApiRoute(
            "POST",
            "/detokenize",
            detokenize,
            "Give the text of tokens (llama.cpp)",
            takes=DetokenizeBody,
            gives=DetokenizeAnswer,
        ),
        ApiRoute(
            "POST",
            "/apply-template",
            apply_template,
            "Write a chat as the model reads it (llama.cpp)",
            takes=ApplyTemplateBody,
            gives=ApplyTemplateAnswer,
        ),
    ]


def _raw_request(asked: InfillBody, adapter: Manifest | None) -> RawRequest:
    n_predict = -1 if asked.n_predict is None else asked.n_predict
    return RawRequest(
        prefix=(asked.input_prefix or "") + (asked.prompt or ""),
        suffix=asked.input_suffix or "",
        context=tuple(ContextChunk(each.filename or UNNAMED, each.text) for each in asked.input_extra or ()),
        adapter=adapter,
        max_tokens=DEFAULT_TOKENS if n_predict < 0 else n_predict,
        sampling=SamplingParams(asked.temperature or 0.0, asked.top_p or 1.0, (asked.seed or 0) % 2**32),
        stop=tuple(each for each in asked.stop or () if each),
        decode_budget_ms=asked.t_max_predict_ms or None,
    )


def _last(model: ModelInstance, end: GenerationChunk, content: str, fields: Sequence[str] | None) -> Any:
    t = end.timings
    whole = InfillAnswer(
        content=content,
        stop=True,
        stop_type="limit" if end.reason in (FinishReason.LENGTH, FinishReason.TIMEOUT) else "eos",
        model=end.model or model.id,
        tokens_predicted=t.decode_tokens,
        tokens_evaluated=t.prompt_tokens,
        tokens_cached=t.prompt_reused + t.decode_tokens,
        truncated=False,
        timings=InfillTimings(
            cache_n=t.prompt_reused,
            prompt_n=t.prompt_evaluated,
            prompt_ms=t.prompt_ms,
            prompt_per_token_ms=t.prompt_ms / t.prompt_evaluated if t.prompt_evaluated else 0.0,
            prompt_per_second=1000 * t.prompt_evaluated / t.prompt_ms if t.prompt_ms else 0.0,
            predicted_n=t.decode_tokens,
            predicted_ms=t.decode_ms,
            predicted_per_token_ms=t.decode_ms / t.decode_tokens if t.decode_tokens else 0.0,
            predicted_per_second=1000 * t.decode_tokens / t.decode_ms if t.decode_ms else 0.0,
        ),
    )
    return _chosen(msgspec.to_builtins(whole), fields) if fields else whole


def _chosen(whole: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Those of the fields that there are, each under its path."""
    chosen = {}
    for path in fields:
        value: Any = whole
        for key in path.split("/"):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            chosen[path] = value
    return chosen


async def _whole(
    generated: AsyncGenerator[GenerationChunk, None], model: ModelInstance, fields: Sequence[str] | None
) -> Any:
    text = ""
    async with aclosing(generated) as chunks:
        async for chunk in chunks:
            text += chunk.text
            if chunk.reason is not None:
                return _last(model, chunk, text, fields)
    raise AssertionError("the last chunk has a reason")


async def _stream(
    generated: AsyncGenerator[GenerationChunk, None], model: ModelInstance, fields: Sequence[str] | None
) -> AsyncGenerator[bytes, None]:
    async with aclosing(generated) as chunks:
        async for chunk in chunks:
            if chunk.reason is None:
                yield msgspec.json.encode(InfillAnswer(content=chunk.text, stop=False))
            else:
                yield msgspec.json.encode(_last(model, chunk, chunk.text, fields))
