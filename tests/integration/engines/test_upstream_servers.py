"""What each kind of server is sent, and what becomes of its answer, by the requests that its own pages document."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fakes.scripted_engines import ScriptedEngine
from peft_core.api_types import FinishReason, SamplingParams
from peft_core.errors import InvalidInput
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines.base import GenerationChunk, GenerationRequest, Segment
from peft_daemon.engines.upstream.engine import UpstreamEngine, UpstreamOptions
from peft_daemon.engines.upstream.failures import UpstreamAddress
from support.played_upstream import (
    PlayedAnswer,
    PlayedUpstream,
    Route,
    events_answer,
    json_answer,
    lines_answer,
    played_upstream,
)

MODEL = "Qwen/Qwen2.5-Coder-7B"
MIDDLE = "<|fim_middle|>"
PROMPT = (Segment("<|fim_prefix|>", special=True), Segment(f"s = '{MIDDLE}'\n"), Segment(MIDDLE, special=True))
"""A file that spells a control token, and two real ones."""
CONTROL = {"<|fim_prefix|>": 151659, MIDDLE: 151660}
PROMPT_IDS = [151659, *map(ord, f"s = '{MIDDLE}'\n"), 151660]


def tokenize(body: Any) -> PlayedAnswer:
    """As vLLM and SGLang do: control tokens are always found in the text, others are its characters here."""
    text, ids = body["prompt"], []
    while text:
        found = next((token for token in CONTROL if text.startswith(token)), text[0])
        ids.append(CONTROL.get(found) or ord(found))
        text = text[len(found) :]
    return json_answer({"tokens": ids, "count": len(ids), "max_model_len": 32768})


def openai_stream(body: Any) -> PlayedAnswer:
    common = {"id": "cmpl-1", "object": "text_completion", "model": body["model"]}

    def choice(text: str, reason: str | None = None) -> dict[str, Any]:
        return {**common, "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": reason}]}

    usage = {"prompt_tokens": 21, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 16}}
    return events_answer(
        choice("x"), choice("\u2028"), choice("y", "stop"), {**common, "choices": [], "usage": usage}, "[DONE]"
    )


def models(*names: str) -> Route:
    return lambda _: json_answer({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


SERVERS: dict[str, dict[str, Route]] = {
    "vllm": {
        "/version": lambda _: json_answer({"version": "0.11.2"}),
        "/v1/models": models(MODEL),
        "/tokenize": tokenize,
        "/v1/completions": openai_stream,
    },
    "sglang": {
        "/get_model_info": lambda _: json_answer({"model_path": MODEL, "tokenizer_path": MODEL, "is_generation": True}),
        "/v1/models": models(MODEL),
        "/tokenize": tokenize,
        "/v1/completions": openai_stream,
    },
    "openai": {"/v1/models": models(MODEL), "/v1/completions": openai_stream},
    "ollama": {
        "/api/version": lambda _: json_answer({"version": "0.12.6"}),
        "/api/tags": lambda _: json_answer({"models": [{"name": MODEL, "size": 1}]}),
        "/v1/models": models(MODEL),
        "/api/generate": lambda _: lines_answer(
            {"model": MODEL, "response": "x", "done": False},
            {"model": MODEL, "response": "\u2028y", "done": False},
            {
                "response": "",
                "done": True,
                "done_reason": "stop",
                "prompt_eval_count": 21,
                "eval_count": 3,
            },
        ),
    },
}


@asynccontextmanager
async def asked(
    routes: dict[str, Route], *, key: str = "", local: ScriptedEngine | None = None, **options: Any
) -> AsyncIterator[tuple[UpstreamEngine, PlayedUpstream]]:
    """An engine that has probed a server with these routes."""
    async with played_upstream(routes) as server:
        address = UpstreamAddress(server.url, key, "Correct TEAM_KEY" if key else "")
        engine = UpstreamEngine(UpstreamOptions(address, model_id="local", **options), local)
        await engine.start()
        try:
            await engine.ready()
            yield engine, server
        finally:
            await engine.stop()


async def generate(engine: UpstreamEngine, request: GenerationRequest) -> tuple[str, GenerationChunk]:
    *chunks, last = [chunk async for chunk in engine.generate(request)]
    assert last.reason is not None and not last.text
    return "".join(chunk.text for chunk in chunks), last


@pytest.mark.parametrize("kind", SERVERS)
async def test_each_kind_is_recognized_and_its_stream_read(kind: str) -> None:
    async with asked(SERVERS[kind], key="sk-team") as (engine, server):
        text, last = await generate(engine, GenerationRequest(PROMPT, 9, stop=("never",)))
        status = engine.status().upstream
    assert status is not None
    assert (status.kind, status.model, status.answers, status.answered) == (kind, MODEL, True, 1)
    assert (text, last.reason, last.timings.decode_tokens) == ("x\u2028y", FinishReason.STOP, 3)
    assert last.timings.prompt_tokens == last.timings.prompt_evaluated + last.timings.prompt_reused == 21
    assert 0 < last.timings.first_token_ms <= last.timings.engine_ms
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer sk-team"}


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
async def test_prompts_are_token_ids_in_which_a_file_forges_none(kind: str) -> None:
    async with asked(SERVERS[kind]) as (engine, server):
        await generate(engine, GenerationRequest(PROMPT, 9, stop=("a", "b", "c", "d", "e")))
        (sent,) = server.to("/v1/completions")
        assert await engine.count_tokens(["def", "", MIDDLE]) == [3, 0, len(MIDDLE)]
    assert sent.body == {
        "model": MODEL,
        "prompt": PROMPT_IDS,
        "max_tokens": 9,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": -1,
        "stop": ["a", "b", "c", "d", "e"],
        "stream": True,
        "stream_options": {"include_usage": True},
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
    }


async def test_a_server_without_a_tokenizer_gets_text_in_which_a_file_forges_no_control_token() -> None:
    async with asked(SERVERS["openai"]) as (engine, server):
        sampling = SamplingParams(temperature=0.8, top_p=0.9, seed=7)
        await generate(engine, GenerationRequest(PROMPT, 9, stop=("a", "b", "c", "d", "e"), sampling=sampling))
        (sent,) = server.to("/v1/completions")
        assert await engine.count_tokens(["x" * 30, ""]) == [10, 0]
    assert sent.body == {
        "model": MODEL,
        "prompt": f"<|fim_prefix|>s = '< |fim_middle|>'\n{MIDDLE}",
        "max_tokens": 9,
        "temperature": 0.8,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["a", "b", "c", "d"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_ollama_gets_the_prompt_raw_and_a_context_that_holds_it() -> None:
    async with asked(SERVERS["ollama"], context_tokens=8192) as (engine, server):
        await generate(engine, GenerationRequest(PROMPT, 9, stop=("a",)))
        (sent,) = server.to("/api/generate")
    assert (sent.body["raw"], sent.body["stream"], sent.body["model"]) == (True, True, MODEL)
    assert sent.body["prompt"] == f"<|fim_prefix|>s = '< |fim_middle|>'\n{MIDDLE}"
    options = sent.body["options"]
    assert (options["num_ctx"], options["num_predict"], options["stop"], options["seed"]) == (8192, 9, ["a"], 0)


async def test_an_answer_begins_with_the_required_text_where_the_server_cannot_be_told() -> None:
    async with asked(SERVERS["openai"]) as (engine, server):
        text, _ = await generate(engine, GenerationRequest((Segment("def"),), 9, begins_with=" f"))
        assert server.to("/v1/completions")[0].body["prompt"] == "def f"
    assert text == " fx\u2028y"


async def test_reading_ahead_writes_nothing_where_the_server_writes_at_least_one_token() -> None:
    async with asked(SERVERS["vllm"]) as (engine, server):
        text, last = await generate(engine, GenerationRequest(PROMPT, 0))
        assert server.to("/v1/completions")[0].body["max_tokens"] == 1
    assert (text, last.reason, last.timings.decode_tokens) == ("", FinishReason.LENGTH, 0)


async def test_nothing_is_read_ahead_where_the_server_may_forget_it() -> None:
    async with asked(SERVERS["openai"]) as (engine, server):
        assert (await generate(engine, GenerationRequest(PROMPT, 0)))[1].reason is FinishReason.LENGTH
        assert server.to("/v1/completions") == []


async def test_a_stop_string_that_the_server_was_not_told_of_ends_the_answer() -> None:
    async with asked(SERVERS["openai"]) as (engine, _):
        text, last = await generate(engine, GenerationRequest(PROMPT, 9, stop=("1", "2", "3", "4", "\u2028y")))
    assert (text, last.reason) == ("x", FinishReason.STOP)


async def test_logprobs_come_as_the_completions_api_writes_them() -> None:
    logprobs = {"tokens": ["x"], "token_logprobs": [-0.5], "top_logprobs": [{"x": -0.5, "y": -1.0}]}
    stream = events_answer({"choices": [{"text": "x", "logprobs": logprobs, "finish_reason": "length"}]}, "[DONE]")
    async with asked({**SERVERS["openai"], "/v1/completions": lambda _: stream}) as (engine, server):
        chunks = [chunk async for chunk in engine.generate(GenerationRequest(PROMPT, 1, logprobs=2))]
        assert server.to("/v1/completions")[0].body["logprobs"] == 2
    (token,) = [token for chunk in chunks for token in chunk.logprobs]
    assert (token.token, token.logprob, token.top) == ("x", -0.5, (("x", -0.5), ("y", -1.0)))
    assert chunks[-1].reason is FinishReason.LENGTH


async def test_cancelling_closes_the_connection() -> None:
    endless = events_answer({"choices": [{"text": "x"}]}, hangs=True)
    async with asked({**SERVERS["openai"], "/v1/completions": lambda _: endless}) as (engine, server):
        async with aclosing(engine.generate(GenerationRequest(PROMPT, 9))) as chunks:
            async for chunk in chunks:
                if chunk.text:
                    break
        assert engine.status().upstream.answered == 1  # type: ignore[union-attr]
        await asyncio.wait_for(server.hung_up.wait(), 10)
        await asyncio.wait_for(engine.idle(), 10)


async def test_the_time_budget_ends_a_stream_that_goes_silent() -> None:
    endless = events_answer({"choices": [{"text": "x"}]}, hangs=True)
    async with asked({**SERVERS["openai"], "/v1/completions": lambda _: endless}) as (engine, _):
        text, last = await generate(engine, GenerationRequest(PROMPT, 9, time_budget_ms=200))
    assert (text, last.reason) == ("x", FinishReason.TIMEOUT)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
        "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
    ],
)
async def test_a_prompt_that_does_not_fit_is_the_request_s_error(message: str) -> None:
    routes = {**SERVERS["vllm"], "/v1/completions": lambda _: json_answer({"error": {"message": message}}, 400)}
    async with asked(routes) as (engine, _):
        with pytest.raises(InvalidInput, match="context_tokens"):
            await generate(engine, GenerationRequest(PROMPT, 9))
        assert engine.status().upstream.answers  # type: ignore[union-attr]


LOADS = {
    "vllm": ("/v1/load_lora_adapter", "mine-dddddddddddd"),
    "sglang": ("/load_lora_adapter", f"{MODEL}:mine-dddddddddddd"),
}
MINE = AdapterLease("d" * 64, Path("/here/adapters/d/adapter.gguf"), 1.0, "mine")


@pytest.mark.parametrize("kind", LOADS)
async def test_an_adapter_is_loaded_there_once_and_then_asked_for_by_its_name(kind: str) -> None:
    path, model = LOADS[kind]
    loaded = json_answer({"success": True, "loaded_adapters": {}})
    async with asked({**SERVERS[kind], path: lambda _: loaded}, folder_there=lambda d: f"/mnt/{d[:2]}/peft") as (
        engine,
        server,
    ):
        for _ in range(2):
            await generate(engine, GenerationRequest(PROMPT, 9, adapter=MINE))
    assert [request.body for request in server.to(path)] == [
        {"lora_name": "mine-dddddddddddd", "lora_path": "/mnt/dd/peft"}
    ]
    assert [request.body["model"] for request in server.to("/v1/completions")] == [model, model]


@pytest.mark.parametrize("message", ["The lora adapter 'mine' has already been loaded.", "already exists"])
async def test_an_adapter_that_is_there_since_an_earlier_start_is_used(message: str) -> None:
    there = json_answer({"object": "error", "message": message, "type": "InvalidUserInput", "code": 400}, 400)
    routes = {**SERVERS["vllm"], "/v1/load_lora_adapter": lambda _: there}
    async with asked(routes, folder_there=lambda digest: f"/mnt/{digest}") as (engine, _):
        assert (await generate(engine, GenerationRequest(PROMPT, 9, adapter=MINE)))[0] == "x\u2028y"


@pytest.mark.parametrize("kind", ["vllm", "openai"])
async def test_an_adapter_that_the_server_does_not_load_is_the_local_model_s_and_all_else_the_server_s(
    kind: str,
) -> None:
    local = ScriptedEngine(["local"])
    async with asked(SERVERS[kind], local=local, folder_there=lambda digest: f"/mnt/{digest}") as (engine, _):
        for _ in range(2):
            assert (await generate(engine, GenerationRequest(PROMPT, 9, adapter=MINE)))[0] == "local"
        status = engine.status()
        assert "did not load the adapter 'mine-dddddddddddd'" in status.last_error and "docs/scale.md" in status.fix
        assert status.upstream is not None and status.upstream.answers
        assert (await generate(engine, GenerationRequest(PROMPT, 9)))[0] == "x\u2028y"


async def test_an_adapter_that_is_loaded_there_has_no_scale() -> None:
    half = AdapterLease(MINE.digest, MINE.path, 0.5, "mine")
    async with asked(SERVERS["vllm"], folder_there=lambda digest: f"/mnt/{digest}") as (engine, _):
        with pytest.raises(InvalidInput, match="scale"):
            await generate(engine, GenerationRequest(PROMPT, 9, adapter=half))
