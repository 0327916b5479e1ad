"""The llama.cpp engine with the real model: streaming, cancellation, budgets, death and recovery."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from peft_core.api_types import EngineState, FinishReason, SamplingParams
from peft_core.errors import EngineFailed, InvalidInput, Unavailable
from peft_daemon.engines.base import Delta, Finish, GenerationRequest, Segment
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

HOLE = (
    Segment("<|fim_prefix|>", special=True),
    Segment("def add(a, b):\n    return"),
    Segment("<|fim_suffix|>", special=True),
    Segment("\n"),
    Segment("<|fim_middle|>", special=True),
)
LONG = (Segment("".join(f"x{n} = {n}\n" for n in range(400))),)


@pytest.fixture(scope="module")
def options(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> LlamaCppOptions:
    return LlamaCppOptions("test", model_file, tmp_path_factory.mktemp("s"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(options: LlamaCppOptions) -> AsyncIterator[LlamaCppEngine]:
    engine = LlamaCppEngine(options)
    await engine.start()
    await engine.ready()
    yield engine
    await engine.stop()


async def generate(engine: LlamaCppEngine, request: GenerationRequest) -> tuple[str, Finish]:
    text, finish = "", None
    async for item in engine.generate(request):
        if isinstance(item, Delta):
            text += item.text
        else:
            finish = item
    assert finish is not None
    return text, finish


async def test_it_fills_a_hole_and_reports_where_the_time_went(engine: LlamaCppEngine) -> None:
    text, finish = await generate(engine, GenerationRequest(HOLE, 16, stop=("<|endoftext|>", "\n")))
    assert text == " a + b"
    assert finish.reason is FinishReason.STOP
    t = finish.timings
    assert t.prompt_tokens == t.prompt_evaluated + t.prompt_reused
    assert t.decode_tokens > 0 and t.first_token_ms > 0


async def test_a_second_request_reuses_the_prompt(engine: LlamaCppEngine) -> None:
    request = GenerationRequest((*HOLE[:1], Segment("def reuse(a, b):\n    pass\n" * 8), *HOLE[2:]), 2)
    await generate(engine, request)
    _, finish = await generate(engine, request)
    assert finish.timings.prompt_evaluated == 1


async def test_a_prompt_read_in_steps_is_the_same_prompt(engine: LlamaCppEngine) -> None:
    # 75 tokens: four steps and a rest. What follows them is only known to who has read all of it.
    text = "secret = 'zanzibar'\n" + "".join(f"x{n} = {n}\n" for n in range(10)) + "assert secret == '"
    answer, finish = await generate(engine, GenerationRequest((Segment(text),), 4))
    assert answer.startswith("zanzibar")
    assert finish.timings.prompt_evaluated + finish.timings.prompt_reused == finish.timings.prompt_tokens > 64


async def test_what_the_model_wrote_is_not_read_again_when_it_was_accepted(engine: LlamaCppEngine) -> None:
    start = "".join(f"first_{n} = {n}\n" for n in range(40))
    answer, finish = await generate(engine, GenerationRequest((Segment(start),), 12))
    assert finish.timings.prompt_evaluated > 100
    _, finish = await generate(engine, GenerationRequest((Segment(start + answer),), 1))
    assert finish.timings.prompt_evaluated <= 3


async def test_reading_stops_where_it_was_cancelled_and_goes_on_from_there(engine: LlamaCppEngine) -> None:
    request = GenerationRequest((Segment("".join(f"second_{n} = {n}\n" for n in range(60))),), 1)
    reading = asyncio.ensure_future(generate(engine, request))
    await asyncio.sleep(0.6)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await engine.idle()
    _, finish = await generate(engine, request)
    assert 0 < finish.timings.prompt_reused < finish.timings.prompt_tokens - 16
    assert finish.timings.prompt_evaluated + finish.timings.prompt_reused == finish.timings.prompt_tokens


async def test_control_tokens_in_a_file_are_plain_text(engine: LlamaCppEngine) -> None:
    (literal,) = await engine.count_tokens(["<|fim_middle|>"])
    assert literal > 1


@pytest.mark.parametrize("text", [" ret", '"', "(", "\n", " \\é"])
async def test_an_answer_begins_with_what_it_has_to(engine: LlamaCppEngine, text: str) -> None:
    request = GenerationRequest((Segment("def add(a, b):\n   "),), 8, begins_with=text)
    assert (await generate(engine, request))[0].startswith(text)


async def test_the_token_limit_ends_with_length(engine: LlamaCppEngine) -> None:
    _, finish = await generate(engine, GenerationRequest((Segment("x = 1\n"),), 3))
    assert (finish.reason, finish.timings.decode_tokens) == (FinishReason.LENGTH, 3)


async def test_the_time_budget_ends_with_timeout(engine: LlamaCppEngine) -> None:
    _, finish = await generate(engine, GenerationRequest((Segment("# count\n"),), 2000, time_budget_ms=400))
    assert finish.reason is FinishReason.TIMEOUT


async def first_text(stream: AsyncGenerator[Delta | Finish, None]) -> None:
    async for item in stream:
        if isinstance(item, Delta) and not item.silent:
            return


async def test_what_is_read_is_told_before_anything_is_written(engine: LlamaCppEngine) -> None:
    prompt = (Segment("".join(f"number_{n} = {n}\n" for n in range(60))),)
    told = []
    async with aclosing(engine.generate(GenerationRequest(prompt, 4))) as items:
        async for item in items:
            if isinstance(item, Delta) and item.silent:
                told.append(item.timings.prompt_evaluated)
            elif isinstance(item, Delta):
                break
    tokens = item.timings.prompt_tokens
    assert told == sorted(told) and len(set(told)) >= 3
    assert told[-1] == item.timings.prompt_evaluated
    assert item.timings.prompt_evaluated + item.timings.prompt_reused == tokens


@pytest.mark.parametrize("after", [0, 1], ids=["while it reads the prompt", "while it writes"])
async def test_closing_the_stream_stops_the_engine(engine: LlamaCppEngine, after: int) -> None:
    prompt = LONG if after == 0 else (Segment("def primes():\n"),)
    stream = engine.generate(GenerationRequest(prompt, 2000))
    if after:
        async with aclosing(stream):
            await first_text(stream)
    else:
        first = asyncio.ensure_future(first_text(stream))
        server = engine._current.server  # type: ignore[union-attr]
        while not await server.busy():
            pass
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await stream.aclose()
    # 2000 tokens or this prompt would keep it busy for far longer than this.
    await asyncio.wait_for(engine.idle(), 20)


async def test_logprobs_come_with_alternatives(engine: LlamaCppEngine) -> None:
    request = GenerationRequest(HOLE, 2, logprobs=3)
    tokens = [p async for d in engine.generate(request) if isinstance(d, Delta) for p in d.logprobs]
    assert len(tokens) == 2
    assert all(t.logprob <= 0 and len(t.top) == 3 for t in tokens)
    assert tokens[0].token == " a"


async def test_a_prompt_that_does_not_fit_is_refused_with_the_fix(engine: LlamaCppEngine) -> None:
    with pytest.raises(InvalidInput, match="context_tokens"):
        await generate(engine, GenerationRequest((Segment("word " * 5000),), 4))


async def test_greedy_output_is_the_same_every_time_the_cache_is_in_the_same_state(engine: LlamaCppEngine) -> None:
    # A prompt read in one go and one found in the cache go through different kernels, whose roundings differ.
    request = GenerationRequest((Segment("def fibonacci(n):\n"),), 12)
    _, first, second = [(await generate(engine, request))[0] for _ in range(3)]
    assert first == second


async def test_a_seed_makes_sampling_repeatable(engine: LlamaCppEngine) -> None:
    def request(seed: int) -> GenerationRequest:
        return GenerationRequest((Segment("# a story about"),), 6, sampling=SamplingParams(temperature=1.5, seed=seed))

    _, first, again = [(await generate(engine, request(7)))[0] for _ in range(3)]
    others = {(await generate(engine, request(seed)))[0] for seed in (1, 2, 3)}
    assert first == again
    assert others != {first}


async def test_a_request_survives_the_death_of_the_engine_when_nothing_was_sent_yet(engine: LlamaCppEngine) -> None:
    before = engine.status()
    assert before.pid is not None
    first = asyncio.ensure_future(generate(engine, GenerationRequest((Segment("y = 1\n" * 60),), 2)))
    while not await engine._current.server.busy():  # type: ignore[union-attr]
        pass
    os.kill(before.pid, signal.SIGKILL)
    _, finish = await first
    assert finish.reason is FinishReason.LENGTH
    after = engine.status()
    assert (after.state, after.restarts) == (EngineState.READY, before.restarts + 1)
    assert after.pid != before.pid


async def test_a_request_that_had_begun_fails_clearly_and_the_next_one_works(engine: LlamaCppEngine) -> None:
    stream = engine.generate(GenerationRequest((Segment("def f():\n"),), 500))
    with pytest.raises(EngineFailed, match="Send the request again"):
        async for item in stream:
            pid = engine.status().pid
            if pid is not None and isinstance(item, Delta) and not item.silent:
                os.kill(pid, signal.SIGKILL)
    text, _ = await generate(engine, GenerationRequest(HOLE, 4))
    assert text


async def test_an_engine_that_is_stopped_while_it_writes_is_replaced_and_the_next_request_is_right(
    engine: LlamaCppEngine,
) -> None:
    before = engine.status()
    assert before.pid is not None
    with pytest.raises(EngineFailed, match="hung while it worked"):
        async for item in engine.generate(GenerationRequest((Segment("def f():\n"),), 500)):
            if isinstance(item, Delta) and not item.silent:
                os.kill(before.pid, signal.SIGSTOP)
    text, _ = await generate(engine, GenerationRequest(HOLE, 16, stop=("<|endoftext|>", "\n")))
    assert text == " a + b"
    assert engine.status().restarts == before.restarts + 1
    assert not psutil.pid_exists(before.pid)


async def test_stopping_ends_the_child_and_refuses_requests(options: LlamaCppOptions) -> None:
    engine = LlamaCppEngine(options)
    await engine.start()
    await engine.ready()
    pid = engine.status().pid
    await engine.stop()
    assert pid is not None and not psutil.pid_exists(pid)
    with pytest.raises(Unavailable, match="peft-daemon start"):
        await generate(engine, GenerationRequest(HOLE, 4))


async def test_a_model_that_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\0" * 1000)
    engine = LlamaCppEngine(LlamaCppOptions("bad", bad, tmp_path))
    await engine.start()
    try:
        with pytest.raises(EngineFailed, match="could not load the model") as caught:
            await engine.ready()
        assert "peft-daemon doctor" in caught.value.fix
        assert engine.status().state is EngineState.FAILED
    finally:
        await engine.stop()
