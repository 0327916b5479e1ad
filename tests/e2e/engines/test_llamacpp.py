"""The llama.cpp engine with the real model: what it writes and reads again; limits and faults are in the contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from peft_core.api_types import FinishReason
from peft_daemon.engines.base import GenerationChunk, GenerationRequest, Segment
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

HOLE = (
    Segment("<|fim_prefix|>", special=True),
    Segment("def add(a, b):\n    return"),
    Segment("<|fim_suffix|>", special=True),
    Segment("\n"),
    Segment("<|fim_middle|>", special=True),
)


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


async def generate(engine: LlamaCppEngine, request: GenerationRequest) -> tuple[str, GenerationChunk]:
    """Return the whole text and the last chunk."""
    chunks = [chunk async for chunk in engine.generate(request)]
    return "".join(chunk.text for chunk in chunks), chunks[-1]


async def test_it_fills_a_hole_and_reports_where_the_time_went(engine: LlamaCppEngine) -> None:
    text, last = await generate(engine, GenerationRequest(HOLE, 16, stop=("<|endoftext|>", "\n")))
    assert text == " a + b"
    assert last.reason is FinishReason.STOP
    t = last.timings
    assert t.prompt_tokens == t.prompt_evaluated + t.prompt_reused
    assert t.decode_tokens > 0 and t.first_token_ms > 0


async def test_a_second_request_reuses_the_prompt(engine: LlamaCppEngine) -> None:
    request = GenerationRequest((*HOLE[:1], Segment("def reuse(a, b):\n    pass\n" * 8), *HOLE[2:]), 2)
    await generate(engine, request)
    _, last = await generate(engine, request)
    assert last.timings.prompt_evaluated == 1


async def test_a_prompt_read_in_steps_is_the_same_prompt(engine: LlamaCppEngine) -> None:
    # 75 tokens: four steps and a rest. What follows them is only known to who has read all of it.
    text = "secret = 'zanzibar'\n" + "".join(f"x{n} = {n}\n" for n in range(10)) + "assert secret == '"
    answer, last = await generate(engine, GenerationRequest((Segment(text),), 4))
    assert answer.startswith("zanzibar")
    assert last.timings.prompt_evaluated + last.timings.prompt_reused == last.timings.prompt_tokens > 64


async def test_what_the_model_wrote_is_not_read_again_when_it_was_accepted(engine: LlamaCppEngine) -> None:
    start = "".join(f"first_{n} = {n}\n" for n in range(40))
    answer, last = await generate(engine, GenerationRequest((Segment(start),), 12))
    assert last.timings.prompt_evaluated > 100
    _, last = await generate(engine, GenerationRequest((Segment(start + answer),), 1))
    assert last.timings.prompt_evaluated <= 3


async def test_reading_stops_where_it_was_cancelled_and_goes_on_from_there(engine: LlamaCppEngine) -> None:
    request = GenerationRequest((Segment("".join(f"second_{n} = {n}\n" for n in range(60))),), 1)
    steps = 0
    third_step = asyncio.Event()

    async def read() -> None:
        nonlocal steps
        async for _ in engine.generate(request):
            steps += 1
            if steps == 6:  # one is reported before each step, and one after it
                third_step.set()

    reading = asyncio.create_task(read())
    await asyncio.wait_for(third_step.wait(), 60)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await engine.idle()
    _, last = await generate(engine, request)
    assert 0 < last.timings.prompt_reused < last.timings.prompt_tokens - 16
    assert last.timings.prompt_evaluated + last.timings.prompt_reused == last.timings.prompt_tokens


async def test_control_tokens_in_a_file_are_plain_text(engine: LlamaCppEngine) -> None:
    (literal,) = await engine.count_tokens(["<|fim_middle|>"])
    assert literal > 1


@pytest.mark.parametrize("text", [" ret", '"', "(", "\n", " \\é"])
async def test_an_answer_begins_with_what_it_has_to(engine: LlamaCppEngine, text: str) -> None:
    request = GenerationRequest((Segment("def add(a, b):\n   "),), 8, begins_with=text)
    assert (await generate(engine, request))[0].startswith(text)


async def test_greedy_output_is_the_same_every_time_the_cache_is_in_the_same_state(engine: LlamaCppEngine) -> None:
    # A prompt read in one go and one found in the cache go through different kernels, whose roundings differ.
    request = GenerationRequest((Segment("def fibonacci(n):\n"),), 12)
    _, first, second = [(await generate(engine, request))[0] for _ in range(3)]
    assert first == second
