"""Answers go through completion's own prompt and post-processing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from peft_core.api_types import FinishReason, Timings
from peft_core.errors import InvalidInput
from peft_core.status_types import EngineState, EngineStatus
from peft_daemon.engines.base import Engine, GenerationChunk, GenerationRequest
from peft_daemon.models.catalogue import PromptFormats
from peft_evaluation.model import Beams, Decoding, Greedy, ModelInput, Samples, ServedModel
from peft_tuning.data.examples import Example, FillExample, IntentExample

ASK = IntentExample(id="i", intent="sort the list", code="x.sort()")
SHOWN = tuple(IntentExample(id=f"s{n}", intent=f"do {n}", code=f"done({n})") for n in range(3))
HOLE = FillExample(id="h", prefix="def f():\n    return ", middle="1", suffix="\n", path="f.py")


class Recorded:
    """An engine that notes requests and answers with their seed."""

    id = "llamacpp"

    def __init__(self, text: str = "{seed}\n```") -> None:
        self.requests: list[GenerationRequest] = []
        self._text = text

    def status(self) -> EngineStatus:
        return EngineStatus(kind="recorded", state=EngineState.READY, model="m", memory_bytes=77)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        self.requests.append(request)
        timings = Timings(prompt_evaluated=30, prompt_reused=12, decode_tokens=5, engine_ms=50.0)
        yield GenerationChunk(request.begins_with + self._text.format(seed=request.sampling.seed), timings=timings)
        yield GenerationChunk(reason=FinishReason.STOP, timings=timings)


class Together(Recorded):
    """Answers nobody before so many ask."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._all = asyncio.Barrier(count)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        await self._all.wait()
        async for item in super().generate(request):
            yield item


def answerer(engine: object, decoding: Decoding | None = None, **changes: Any) -> ServedModel:
    facts: dict[str, Any] = {
        "engine": engine,
        "formats": PromptFormats(fill="qwen-fim-v1", intent="qwen-chat-v1"),
        "context_tokens": 4096,
        "prompt_tokens": 1024,
        "max_tokens": 64,
        "decoding": decoding or Greedy(),
        "at_once": 1,
    }
    return ServedModel(**(facts | changes))


def question(example: Example = ASK, shown: tuple[Example, ...] = (), seed: int = 0) -> ModelInput:
    return ModelInput(example=example, shown=shown, adapter=None, seed=seed)


def text(request: GenerationRequest) -> str:
    return "".join(segment.text for segment in request.prompt)


async def test_examples_stand_before_the_question_in_their_order() -> None:
    engine = Recorded()
    given = await answerer(engine).answer(question(shown=SHOWN))
    prompt = text(engine.requests[0])
    places = [prompt.index(part) for part in ("do 0", "done(0)", "do 1", "done(1)", "do 2", "done(2)", "sort the list")]
    assert places == sorted(places)
    assert (given.shown, given.prompt_tokens, given.reused_tokens) == (3, 42, 12)


async def test_examples_that_do_not_fit_are_left_out_from_the_last() -> None:
    engine = Recorded()
    alone = answerer(engine)
    await alone.answer(question())
    room = sum(1 if segment.special else len(segment.text) for segment in engine.requests[0].prompt)
    given = await answerer(engine, context_tokens=room + 64 + 16 + 150).answer(question(shown=SHOWN))
    assert 0 < given.shown < 3
    assert f"do {given.shown - 1}" in text(engine.requests[-1])
    assert f"do {given.shown}" not in text(engine.requests[-1])


async def test_a_question_too_long_even_alone_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="does not fit"):
        await answerer(Recorded(), context_tokens=200).answer(
            question(IntentExample(id="l", intent="long " * 200, code=""), shown=SHOWN)
        )


async def test_what_comes_back_is_what_completion_would_show() -> None:
    given = await answerer(Recorded("return 1\n```\nThis code …")).answer(question())
    assert given.texts == ("return 1",)


async def test_samples_of_two_seeds_have_nothing_in_common() -> None:
    engine = Recorded()
    asked = answerer(engine, Samples(3, 0.6, 0.95))
    given = await asked.answer(question(seed=1))
    assert len(given.texts) == 3
    assert given.answer_tokens == 15
    await asked.answer(question(seed=2))
    seeds = [request.sampling.seed for request in engine.requests]
    assert len(set(seeds)) == 6
    assert {(request.sampling.temperature, request.sampling.top_p) for request in engine.requests} == {(0.6, 0.95)}


async def test_as_many_samples_as_wished_are_drawn_together_and_stay_in_order() -> None:
    engine = Together(4)
    asked = answerer(engine, Samples(4, 0.6, 0.95), draws_at_once=4, at_once=9)
    given = await asyncio.wait_for(asked.answer(question(seed=1)), 10)
    assert given.texts == ("1000", "1001", "1002", "1003")
    assert given.beside == 9


async def test_greedy_is_greedy_and_once() -> None:
    engine = Recorded()
    await answerer(engine).answer(question(seed=42))
    assert [request.sampling.temperature for request in engine.requests] == [0.0]


async def test_a_hole_gets_solved_holes_as_pieces_of_other_files() -> None:
    engine = Recorded("1")
    shown = (FillExample(id="o", prefix="def g():\n    return ", middle="2", suffix="\n", path="g.py"),)
    await answerer(engine).answer(question(HOLE, shown))
    prompt = text(engine.requests[0])
    assert "g.py\ndef g():\n    return 2" in prompt
    assert prompt.index("g.py") < prompt.index("f.py")


async def test_a_hole_is_shown_as_much_as_completion_shows() -> None:
    long = FillExample(id="l", prefix="x = 1\n" * 400, middle="y", suffix="\n" + "z = 2\n" * 400, path="f.py")
    engine, served = Recorded("1"), Recorded("1")
    await answerer(engine).answer(question(long))
    await answerer(served, prompt_tokens=300).answer(question(long))
    assert 700 < len(text(engine.requests[0])) <= 1024 + 64
    assert len(text(served.requests[0])) <= 300 + 64


@pytest.mark.parametrize("samples", [(0, 0.6, 0.95), (1, 0.0, 0.95), (1, 0.6, 0.0), (1, 3.0, 1.0)])
def test_nonsense_to_draw_is_refused(samples: tuple[int, float, float]) -> None:
    with pytest.raises(InvalidInput):
        Samples(*samples)


def test_serving_engines_have_no_beams() -> None:
    with pytest.raises(InvalidInput, match="beam"):
        answerer(Recorded(), Beams(10))


def test_a_recorded_engine_has_what_an_engine_needs() -> None:
    assert {"status", "count_tokens", "generate"} <= set(dir(Engine)) & set(dir(Recorded))
