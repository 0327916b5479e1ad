"""llama.cpp-compatible ``/infill`` and ``/health``, so that editors made for llama-server (llama.vscode, llama.vim)
work against the daemon: same fields, same stream, plus the repository's adapter.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from peft_core.api_types import ContextChunk, EngineState, FinishReason, SamplingParams, Task, Temperature, Text
from peft_core.paths import MAX_PATH_CHARS
from peft_daemon.completion.service import CompletionService, RawRequest
from peft_daemon.engines.base import GenerationChunk
from peft_daemon.routes.responses import answer, body, event_stream, while_connected


class ExtraChunk(msgspec.Struct, frozen=True):
    """A piece of another file."""

    text: Text
    filename: Annotated[str, Meta(max_length=MAX_PATH_CHARS)] = "tmp"


class InfillBody(msgspec.Struct, frozen=True, kw_only=True):
    """llama.cpp's fields; sampling details it knows and we do not are ignored, as its clients send many."""

    input_prefix: Text = ""
    input_suffix: Text = ""
    input_extra: Annotated[list[ExtraChunk], Meta(max_length=256)] = []
    prompt: Text = ""
    """The current line up to the cursor."""
    n_predict: Annotated[int, Meta(ge=-1, le=4096)] = 128
    temperature: Temperature = 0.0
    top_p: Annotated[float, Meta(ge=0.0, le=1.0)] = 1.0
    seed: int = 0
    stop: Annotated[list[str], Meta(max_length=16)] = []
    stream: bool = False
    t_max_predict_ms: Annotated[int, Meta(ge=0, le=600_000)] = 0
    id_slot: int = -1
    model: str | None = None


def routes(service: CompletionService) -> list[Route]:
    """The routes of this protocol."""

    async def infill(request: Request) -> Response:
        asked = await body(request, InfillBody)
        raw = _raw_request(service, asked)
        if asked.stream:
            return await event_stream(request, _stream(service, raw))
        return answer(await while_connected(request, _whole(service, raw)))

    async def health(request: Request) -> Response:
        engine = service.engine_status()
        if engine.state is EngineState.READY and engine.responding:
            return answer({"status": "ok"})
        loads = engine.state is EngineState.STARTING and not engine.last_error
        hangs = engine.state is EngineState.READY
        message = "Loading model" if loads else "The engine does not answer" if hangs else engine.last_error
        error = {"code": 503, "message": message or f"The engine is {engine.state}", "type": "unavailable_error"}
        return answer({"status": "loading" if loads else "error", "error": error}, 503)

    return [Route("/infill", infill, methods=["POST"]), Route("/health", health)]


def _raw_request(service: CompletionService, asked: InfillBody) -> RawRequest:
    named = asked.model not in (None, "", service.model_id)
    return RawRequest(
        prefix=asked.input_prefix + asked.prompt,
        suffix=asked.input_suffix,
        context=tuple(ContextChunk(path=e.filename, text=e.text) for e in asked.input_extra),
        adapter=service.adapter_named(asked.model or "") if named else service.adapter_in_use(Task.FILL, None),
        max_tokens=128 if asked.n_predict < 0 else asked.n_predict,
        sampling=SamplingParams(asked.temperature, asked.top_p or 1.0, asked.seed % 2**32),
        stop=tuple(s for s in asked.stop if s),
        decode_budget_ms=asked.t_max_predict_ms or None,
    )


def _last(service: CompletionService, end: GenerationChunk, content: str) -> dict[str, Any]:
    t = end.timings
    return {
        "content": content,
        "stop": True,
        "stop_type": "limit" if end.reason is FinishReason.LENGTH else "eos",
        "model": service.model_id,
        "tokens_predicted": t.decode_tokens,
        "tokens_evaluated": t.prompt_tokens,
        "tokens_cached": t.prompt_reused + t.decode_tokens,
        "truncated": False,
        "timings": {
            "cache_n": t.prompt_reused,
            "prompt_n": t.prompt_evaluated,
            "prompt_ms": t.prompt_ms,
            "prompt_per_second": 1000 * t.prompt_evaluated / t.prompt_ms if t.prompt_ms else 0.0,
            "predicted_n": t.decode_tokens,
            "predicted_ms": t.decode_ms,
            "predicted_per_second": 1000 * t.decode_tokens / t.decode_ms if t.decode_ms else 0.0,
        },
    }


async def _whole(service: CompletionService, raw: RawRequest) -> dict[str, Any]:
    text = ""
    async with aclosing(service.raw(raw, route="infill")) as chunks:
        async for chunk in chunks:
            text += chunk.text
            if chunk.reason is not None:
                return _last(service, chunk, text)
    raise AssertionError("the last chunk has a reason")


async def _stream(service: CompletionService, raw: RawRequest) -> AsyncGenerator[bytes, None]:
    async with aclosing(service.raw(raw, route="infill")) as chunks:
        async for chunk in chunks:
            if chunk.reason is None:
                yield msgspec.json.encode({"content": chunk.text, "stop": False})
            else:
                yield msgspec.json.encode(_last(service, chunk, chunk.text))
