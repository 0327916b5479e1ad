"""An engine that is loaded only while it is used: started once, kept while asked, ended afterwards, started again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest

from fakes.scripted_engines import PacedEngine, ScriptedEngine
from peft_core.errors import EngineFailed, Unavailable
from peft_daemon.engines.base import GenerationRequest, PromptCachingEngine, TokenizingEngine
from peft_daemon.engines.on_demand import OnDemandEngine, on_demand

REQUEST = GenerationRequest((), max_tokens=4)
SOON_S = 0.02


class StartedEngine(PacedEngine):
    """Notes when it is started and ended; ``end`` lets it end."""

    def __init__(self, answer: Sequence[str] = ("x",), *, at_once: int = 1000) -> None:
        super().__init__(lambda _: answer, at_once=at_once)
        self.events: list[str] = []
        self.stopped, self.end = asyncio.Event(), asyncio.Event()
        self.end.set()
        self._runs = False

    async def start(self) -> None:
        if not self._runs:
            self._runs = True
            self.events.append("start")

    async def stop(self) -> None:
        self.stopped.set()
        await self.end.wait()
        if self._runs:
            self._runs = False
            self.events.append("stop")

    async def generate(self, request: GenerationRequest) -> AsyncGenerator:  # type: ignore[type-arg,override]
        assert self._runs
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk
                assert self._runs


class ShowingEngine(ScriptedEngine):
    """Shows tokens."""

    id = "llamacpp"

    async def tokenize(self, text: str, *, special: bool) -> list[int]:
        return [ord(each) for each in text]

    async def detokenize(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))


async def answer(engine: OnDemandEngine) -> str:
    async with aclosing(engine.generate(REQUEST)) as chunks:
        return "".join([chunk.text async for chunk in chunks])


async def test_it_is_started_by_its_first_request_and_kept_for_the_next() -> None:
    inner = StartedEngine()
    engine = OnDemandEngine(inner, 60.0)
    await engine.start()
    assert inner.events == []
    assert [await answer(engine), await answer(engine)] == ["x", "x"]
    assert await engine.count_tokens(["four"]) == [2] and await engine.unread(REQUEST) == 0
    assert inner.events == ["start"]
    await engine.stop()
    assert inner.events == ["start", "stop"]


async def test_it_is_ended_when_it_was_unused_for_a_while_and_started_again() -> None:
    inner = StartedEngine()
    engine = OnDemandEngine(inner, SOON_S)
    await engine.start()
    assert await answer(engine) == "x"
    await inner.stopped.wait()
    assert await answer(engine) == "x"
    assert inner.events == ["start", "stop", "start"]
    await engine.stop()


async def test_it_is_not_ended_under_a_request_however_long_that_takes() -> None:
    inner = StartedEngine(("a", "b"), at_once=1)
    engine = OnDemandEngine(inner, SOON_S)
    await engine.start()
    long = asyncio.create_task(answer(engine))
    await inner.waiting.wait()
    assert await engine.count_tokens(["x"]) == [1]  # a short one that ends meanwhile
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(inner.stopped.wait(), 5 * SOON_S)
    inner.go.set()
    assert await long == "ab"
    await asyncio.wait_for(inner.stopped.wait(), 10)
    await engine.stop()


async def test_a_request_that_comes_while_it_is_ended_waits_and_has_it_started_again() -> None:
    inner = StartedEngine()
    inner.end.clear()
    engine = OnDemandEngine(inner, SOON_S)
    await engine.start()
    await answer(engine)
    await inner.stopped.wait()
    waiting = asyncio.create_task(answer(engine))
    await asyncio.sleep(0)
    assert not waiting.done() and inner.events == ["start"]
    inner.end.set()
    assert await waiting == "x"
    assert inner.events == ["start", "stop", "start"]
    await engine.stop()


async def test_requests_at_the_same_time_start_it_once() -> None:
    inner = StartedEngine()
    engine = OnDemandEngine(inner, 60.0)
    await engine.start()
    assert await asyncio.gather(*(answer(engine) for _ in range(5))) == ["x"] * 5
    assert inner.events == ["start"]
    await engine.stop()


async def test_a_stopped_one_refuses_requests_and_is_not_started_by_them() -> None:
    inner = StartedEngine()
    engine = OnDemandEngine(inner, SOON_S)
    await engine.start()
    await answer(engine)
    await engine.stop()
    with pytest.raises(Unavailable, match="stopped"):
        await answer(engine)
    assert inner.events == ["start", "stop"]


async def test_a_failure_reaches_the_request_and_the_engine_is_ended_all_the_same() -> None:
    inner = StartedEngine()
    inner.fails = True
    engine = OnDemandEngine(inner, SOON_S)
    await engine.start()
    with pytest.raises(EngineFailed):
        await answer(engine)
    await asyncio.wait_for(inner.stopped.wait(), 10)
    await engine.stop()


async def test_it_shows_tokens_if_the_engine_inside_does() -> None:
    shows = on_demand(ShowingEngine([]))
    await shows.start()
    assert isinstance(shows, TokenizingEngine) and isinstance(shows, PromptCachingEngine)
    assert await shows.detokenize(await shows.tokenize("ab", special=False)) == "ab"
    assert await shows.unread(REQUEST) == 0
    await shows.stop()
    assert not isinstance(on_demand(PacedEngine(lambda _: ())), TokenizingEngine)
