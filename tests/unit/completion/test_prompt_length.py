"""Which prompt a keystroke is answered from, and what is read ahead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from fakes.scripted_engines import PacedEngine
from peft_core.api_types import ContextChunk, Timings
from peft_core.code.document import Document
from peft_core.settings import Settings
from peft_daemon.completion import formats
from peft_daemon.completion.job import (
    MAX_EXTRA_UNREAD_TOKENS,
    MAX_UNREAD_TOKENS,
    MIN_READ_TOKENS,
    MIN_WRITTEN_TOKENS,
    CompletionJob,
    Limits,
    RequestBuilder,
)
from peft_daemon.engines.base import Engine, EngineSpeed, GenerationRequest

LINES = "".join(f"VALUE_{n} = {n * n}\n" for n in range(200))
JOB = CompletionJob(
    document=Document(LINES + "def area(width):\n    ", "\n"),
    format=formats.get("qwen-fim-v1"),
    context_tokens=1024,
    max_tokens=64,
)


def length(request: GenerationRequest) -> int:
    return sum(len(each.text) for each in request.prompt)


class Remembering(PacedEngine):
    """``unread`` says how many tokens of a prompt of so many characters it does not hold."""

    def __init__(self, unread: Callable[[int], int]) -> None:
        super().__init__(lambda _: ())
        self._unread = unread

    async def unread(self, request: GenerationRequest) -> int:
        """As the test says."""
        return self._unread(length(request))


def requests(unread: Callable[[int], int], limits: Limits | None = None) -> RequestBuilder:
    return RequestBuilder(Remembering(unread), limits or Limits(Settings()))


def split(full: int, short: int) -> Callable[[int], int]:
    """A full prompt (of more than 1,500 characters) has so much unread, a short one so much."""
    return lambda characters: full if characters > 1500 else short


@pytest.mark.parametrize(
    ("full", "short", "is_short", "unread"),
    [
        (600, 100, True, 100),
        (MAX_UNREAD_TOKENS, 0, False, MAX_UNREAD_TOKENS),
        (MAX_EXTRA_UNREAD_TOKENS, 0, False, MAX_EXTRA_UNREAD_TOKENS),
        (MAX_EXTRA_UNREAD_TOKENS + 1, 0, True, 0),
        (300, 300, False, 300),
    ],
)
async def test_a_short_prompt_is_taken_where_it_saves_reading(
    full: int, short: int, is_short: bool, unread: int
) -> None:
    request, to_read = await requests(split(full, short)).quickest(JOB)
    assert to_read == unread
    assert (length(request) < 1500) is is_short


@pytest.mark.parametrize(
    ("tokens_per_s", "full", "is_short"),
    [
        (80, 600, True),
        (60, MAX_EXTRA_UNREAD_TOKENS, False),
        (60, MAX_EXTRA_UNREAD_TOKENS + 1, True),
        (1000, 600, False),
        (1000, 700, True),
        (3000, 1900, False),
    ],
)
async def test_the_faster_an_engine_reads_the_longer_may_a_prompt_be(
    tokens_per_s: int, full: int, is_short: bool
) -> None:
    limits = Limits(Settings())
    limits.note(Timings(prompt_evaluated=tokens_per_s, prompt_ms=1000))
    request, _ = await requests(split(full, 0), limits).quickest(JOB)
    assert (length(request) < 1500) is is_short


def test_the_speed_is_a_moving_mean_of_what_was_read_and_written() -> None:
    limits = Limits(Settings())
    limits.note(Timings(prompt_evaluated=MIN_READ_TOKENS - 1, prompt_ms=1, decode_tokens=MIN_WRITTEN_TOKENS - 1))
    limits.note(Timings(prompt_evaluated=500, decode_tokens=500))  # no time: interrupted
    assert limits.speed == EngineSpeed()
    limits.note(Timings(prompt_evaluated=100, prompt_ms=1000))
    assert limits.speed == EngineSpeed(reading=100)
    limits.note(Timings(decode_tokens=30, decode_ms=1000))
    assert limits.speed == EngineSpeed(reading=100, writing=30)
    for _ in range(20):
        limits.note(Timings(prompt_evaluated=200, prompt_ms=1000, decode_tokens=10, decode_ms=1000))
    assert limits.speed.reading == pytest.approx(200, rel=0.01)
    assert limits.speed.writing == pytest.approx(10, rel=0.01)


async def test_steps_are_as_long_as_the_speed_allows() -> None:
    slow, fast = Limits(Settings(), EngineSpeed(90, 20)), Limits(Settings(), EngineSpeed(2000, 200))
    for limits, step in ((slow, 16), (fast, 192)):
        request, _ = await requests(split(0, 0), limits).quickest(JOB)
        assert request.step_tokens == step


def test_each_limit_is_told_with_its_reason() -> None:
    unknown, known = Limits(Settings()), Limits(Settings(batch_tokens=64, look_ahead=False), EngineSpeed(8000, 100))
    assert {each.name: (each.value, each.why) for each in unknown.explained(4096)} == {
        "prompt_tokens": (1024, "the least, until the engine's speed is known"),
        "full_prompt_unread_tokens": (
            48,
            "with more to read, a short one comes first; what is read in 0.65 s",
        ),
        "step_tokens": (16, "the least, until the engine's speed is known"),
        "context_tokens": (4096, "for the longest prompt when it started"),
        "look_ahead": (1, "until the engine's speed is known"),
    }
    told = {each.name: (each.value, each.why) for each in known.explained(6144)}
    assert told["prompt_tokens"] == (2048, "2400 are read in 0.3 s")
    assert told["step_tokens"] == (64, "`batch_tokens` says so")
    assert told["look_ahead"] == (0, "`look_ahead` says so")


async def test_a_prompt_that_is_to_be_shorter_yet_stays_so() -> None:
    request, _ = await requests(lambda _: 600).quickest(replace(JOB, prompt_tokens=100))
    assert length(request) < 400


async def test_a_short_prompt_is_the_text_at_the_cursor_alone() -> None:
    job = replace(JOB, context=(ContextChunk("other.py", "ANSWER = 42\n"),))
    short, full = await requests(split(600, 100)).reading(job)
    assert "ANSWER" in "".join(each.text for each in full.prompt)
    assert "ANSWER" not in "".join(each.text for each in short.prompt)


async def test_a_sentence_that_fits_no_short_prompt_is_read_whole() -> None:
    job = CompletionJob(
        document=Document("", ""),
        format=formats.get("qwen-chat-v1"),
        context_tokens=1024,
        max_tokens=64,
        intent="add one more " * 100,
    )
    request, _ = await requests(lambda characters: characters).quickest(job)
    assert length(request) > 1300


async def test_the_short_prompt_is_read_before_the_full_one_and_nothing_is_written() -> None:
    short, full = await requests(split(600, 100)).reading(JOB)
    assert length(short) < 1500 < length(full)
    assert short.max_tokens == full.max_tokens == 0
    assert short.begins_with == ""


async def test_what_is_at_hand_is_all_there_is_to_read() -> None:
    (full,) = await requests(split(3, 0)).reading(JOB)
    assert length(full) > 1500


async def test_an_engine_that_keeps_no_prompts_is_shown_all() -> None:
    request, to_read = await RequestBuilder(_without_unread(PacedEngine(lambda _: ())), Limits(Settings())).quickest(
        JOB
    )
    assert to_read == 0
    assert length(request) > 1500


def _without_unread(engine: PacedEngine) -> Engine:
    """The engine, of which only what every engine has can be seen."""

    class Plain:
        count_tokens = engine.count_tokens

    return Plain()  # type: ignore[return-value]
