"""Typing against a model: what is answered from earlier answers, what is joined, what is begun anew, what gives way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fakes.scripted_engines import PacedEngine
from peft_core.api_types import ContextChunk, FinishReason, Origin, Timings
from peft_core.code.document import Document
from peft_core.errors import EngineFailed
from peft_core.settings import Settings
from peft_daemon.completion import formats, prefetch
from peft_daemon.completion.job import CompletionJob, Limits
from peft_daemon.completion.scheduler import Deadlines, Scheduler, Superseded
from peft_daemon.completion.stream import Completer, Completion, StreamStats

QWEN = formats.get("qwen-fim-v1")
FILE = "def area(width, height):\n    "
ANSWER = ("return", " width", " *", " height", "\n", "\n\nclass")


class Desk:
    """A completer, its engine, and what was generated."""

    def __init__(self, answer: Callable[[str], Sequence[str]] = lambda _: ANSWER, *, at_once: int = 1000) -> None:
        self.engine = PacedEngine(answer, at_once=at_once)
        self.scheduler = Scheduler(1)
        self.spent: list[Timings] = []
        self.completer = Completer(self.engine, self.scheduler, Limits(Settings()), self.spent.append)

    async def ask(
        self, source: str, *, show_after_ms: int | None = None, **options: object
    ) -> tuple[Completion, Origin]:
        """The completion at ``‸`` and where it came from."""
        return await self.answer(wanted(source, **options), show_after_ms=show_after_ms)

    async def answer(self, job: CompletionJob, *, show_after_ms: int | None = None) -> tuple[Completion, Origin]:
        """The completion of a job and where it came from."""
        stats = StreamStats()
        display_s = None if show_after_ms is None else show_after_ms / 1000
        deadlines = Deadlines(asyncio.get_running_loop().time(), display_s=display_s)
        async with aclosing(self.completer.run(job, stats, deadlines)) as parts:
            async for part in parts:
                if isinstance(part, Completion):
                    return part, stats.origin
        raise AssertionError("no completion")

    async def generated(self, count: int) -> None:
        """Wait until so many generations have begun, and none runs."""
        await self.begun(count)
        while self.engine.running:
            self.engine.ended.clear()
            await self.engine.ended.wait()

    async def begun(self, count: int) -> None:
        """Wait until so many generations have begun."""
        while len(self.engine.requests) < count:
            self.engine.begun.clear()
            await self.engine.begun.wait()


async def turns() -> None:
    """Let all that can go on do so: some turns of the event loop."""
    for _ in range(50):
        await asyncio.sleep(0)


def wanted(source: str, document: str = "doc", **options: object) -> CompletionJob:
    """What is asked at ``‸``."""
    prefix, _, suffix = source.partition("‸")
    settings = {"format": QWEN, "context_tokens": 1024, "max_tokens": 64, **options}
    return CompletionJob(document=Document(prefix, suffix), document_key=document, **settings)  # type: ignore[arg-type]


async def test_typing_along_an_answer_asks_the_model_once() -> None:
    desk = Desk()
    end, origin = await desk.ask(FILE + "‸\n")
    assert (end.text, origin) == ("return width * height", Origin.MODEL)
    for typed in range(1, len(end.text)):
        rest, origin = await desk.ask(FILE + end.text[:typed] + "‸\n")
        assert end.text[:typed] + rest.text == end.text
        assert origin is Origin.KEPT
    assert len(desk.engine.requests) == 1


async def test_going_back_to_a_place_asked_before_asks_nothing() -> None:
    desk = Desk()
    await desk.ask(FILE + "‸\n")
    await desk.ask(FILE + "x‸\n")
    assert (await desk.ask(FILE + "‸\n"))[1] is Origin.KEPT


async def test_typing_something_else_asks_anew() -> None:
    desk = Desk()
    await desk.ask(FILE + "‸\n")
    assert (await desk.ask(FILE + "x‸\n"))[1] is Origin.MODEL


@pytest.mark.parametrize(
    "options",
    [
        {"document": "other"},
        {"max_tokens": 32},
        {"context": (ContextChunk("a.py", "A = 1\n"),)},
        {"single_line": True},
    ],
)
async def test_another_question_is_not_answered_with_it(options: dict[str, object]) -> None:
    desk = Desk()
    await desk.ask(FILE + "‸\n")
    assert (await desk.ask(FILE + "‸\n", **options))[1] is Origin.MODEL


async def test_an_editor_s_own_closing_bracket_does_not_lose_the_answer() -> None:
    desk = Desk(lambda _: ("print", "(", "width", ")"))
    await desk.ask("width = 1\n‸\n")
    end, origin = await desk.ask("width = 1\nprint(‸)\n")
    assert (end.text, origin) == ("width", Origin.KEPT)


async def test_a_key_that_agrees_joins_the_answer_being_written() -> None:
    desk = Desk(at_once=2)
    first = asyncio.create_task(desk.ask(FILE + "‸\n"))
    await desk.begun(1)
    second = asyncio.create_task(desk.ask(FILE + "ret‸\n"))
    with pytest.raises(Superseded):
        await first
    desk.engine.go.set()
    end, origin = await second
    assert (end.text, origin) == ("urn width * height", Origin.JOINED)
    assert len(desk.engine.requests) == 1


async def test_a_key_typed_ahead_of_the_model_joins_and_is_answered_anew_if_the_model_goes_another_way() -> None:
    desk = Desk(at_once=1)
    first = asyncio.create_task(desk.ask(FILE + "‸\n"))
    await desk.begun(1)
    ahead = asyncio.create_task(desk.ask(FILE + "return 2‸\n"))
    with pytest.raises(Superseded):
        await first
    assert len(desk.engine.requests) == 1
    desk.engine.go.set()
    _, origin = await ahead
    assert origin is Origin.MODEL
    assert len(desk.engine.requests) == 2


@pytest.mark.parametrize(("left", "joins"), [(550, False), (20, True)])
async def test_a_key_does_not_wait_for_a_long_prompt_to_be_read(left: int, joins: bool) -> None:
    desk = Desk()
    desk.engine.warm = False
    desk.engine.reading = Timings(prompt_tokens=600, prompt_evaluated=600 - left)
    by_hand = asyncio.create_task(desk.ask(LONG + FILE + "‸\n"))
    await desk.engine.waiting.wait()
    key = asyncio.create_task(_finish(desk, replace(wanted(LONG + FILE + "r‸\n"), automatic=True)))
    with pytest.raises(Superseded):
        await by_hand
    await desk.begun(1 if joins else 2)
    assert len(desk.engine.requests) == (1 if joins else 2)
    desk.engine.go.set()
    await key


async def test_where_all_that_the_model_says_is_there_already_it_is_not_asked_again() -> None:
    desk = Desk(lambda _: ("return", " width", "\n", "x = 1"))
    source = FILE + "‸\n    return width\n"
    assert (await desk.ask(source))[0].text == ""
    end, origin = await desk.ask(FILE + "ret‸\n    return width\n")
    assert (end.text, origin) == ("", Origin.KEPT)
    assert len(desk.engine.requests) == 1


def test_who_joins_a_generation_has_waited_as_long_as_it_runs() -> None:
    assert Deadlines(10.0, display_s=0.3).display_at(began=9.8) == pytest.approx(10.1)
    assert Deadlines(10.0, display_s=0.3).display_at(began=10.2) == pytest.approx(10.3)
    assert Deadlines(10.0).display_at(began=9.8) is None


async def test_a_key_that_contradicts_ends_the_answer_before_the_next_one_begins() -> None:
    desk = Desk(at_once=2)
    first = asyncio.create_task(desk.ask(FILE + "‸\n"))
    await desk.begun(1)
    desk.engine.go.set()
    _, origin = await desk.ask(FILE + "x‸\n")
    assert origin is Origin.MODEL
    assert desk.engine.most_running == 1
    await asyncio.gather(first, return_exceptions=True)


async def test_an_interrupted_answer_is_not_kept() -> None:
    desk = Desk(at_once=2)
    first = asyncio.create_task(desk.ask(FILE + "‸\n"))
    await desk.engine.waiting.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    desk.engine.go.set()
    end, origin = await desk.ask(FILE + "‸\n")
    assert (end.text, origin) == ("return width * height", Origin.MODEL)


async def test_when_the_time_has_come_what_is_complete_is_shown_and_the_rest_can_be_asked_for() -> None:
    desk = Desk(at_once=3)
    end, _ = await desk.ask(FILE + "‸\n", show_after_ms=300)
    assert (end.text, end.more, end.reason) == ("return width *", True, FinishReason.TIMEOUT)
    rest = asyncio.create_task(desk.ask(FILE + "‸\n"))
    await turns()
    desk.engine.go.set()
    whole, origin = await rest
    assert (whole.text, whole.more, origin) == ("return width * height", False, Origin.JOINED)


async def test_an_answer_in_time_has_no_more() -> None:
    end, _ = await Desk().ask(FILE + "‸\n", show_after_ms=10_000)
    assert (end.text, end.more) == ("return width * height", False)


async def test_what_follows_an_accepted_suggestion_is_there_already() -> None:
    desk = Desk(lambda prompt: ("area = 1", "\n", "\nx") if prompt.endswith("    ") else ("\n    return area", "\n"))
    end, _ = await desk.ask(FILE + "‸\n")
    desk.completer.prefetcher.prefetch(wanted(FILE + end.text + "‸\n"))
    await desk.generated(2)
    after, origin = await desk.ask(FILE + end.text + "‸\n")
    assert origin is Origin.KEPT
    assert (end.text, after.text) == ("area = 1", "")
    after, origin = await desk.ask(FILE + end.text + "\n    ‸\n")
    assert (after.text, origin) == ("return area", Origin.KEPT)


async def test_what_the_model_says_behind_a_line_is_kept_where_it_does_not_go_on_with_enter() -> None:
    def says(prompt: str) -> tuple[str, ...]:
        return ("return area",) if prompt.endswith("    ") else ("\n", "y", " = 1")

    desk = Desk(says)
    desk.completer.prefetcher.prefetch(wanted(FILE + "area = 1‸\n"))
    await desk.generated(2)
    end, origin = await desk.ask(FILE + "area = 1‸\n")
    assert (end.text, origin) == ("", Origin.KEPT)
    end, origin = await desk.ask(FILE + "area = 1\n    ‸\n")
    assert (end.text, origin) == ("return area", Origin.KEPT)


async def test_preparing_ahead_gives_way_to_another_document() -> None:
    desk = Desk(at_once=0)
    desk.completer.prefetcher.prefetch(wanted(FILE + "‸\n"))
    await desk.begun(1)
    other = asyncio.create_task(desk.ask("y = ‸\n", document="other"))
    await desk.begun(2)
    assert desk.engine.most_running == 1
    desk.engine.go.set()
    await other


async def test_warming_reads_the_prompt_and_writes_nothing() -> None:
    desk = Desk()
    answer = await desk.completer.prefetcher.warm(wanted(FILE + "‸\n"))
    assert answer.warm
    assert desk.engine.requests[0].max_tokens == 0
    assert (await desk.ask(FILE + "‸\n"))[1] is Origin.MODEL


async def test_warming_waits_until_nobody_waits_for_an_answer() -> None:
    desk = Desk(at_once=2)
    asking = asyncio.create_task(desk.ask("y = ‸\n", document="other"))
    await desk.begun(1)
    older, newer = (asyncio.create_task(desk.completer.prefetcher.warm(wanted(FILE + end))) for end in ("‸\n", "x‸\n"))
    await turns()
    assert len(desk.engine.requests) == 1
    desk.engine.go.set()
    await asking
    assert [(await older).warm, (await newer).warm] == [False, True]
    assert [request.max_tokens for request in desk.engine.requests] == [64, 0]


async def test_warming_is_not_interrupted_by_what_is_prepared_for_another_document(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prefetch, "PREFETCH_DELAY_S", 0.0)
    desk = Desk(at_once=0)
    desk.completer.prefetcher.prefetch(wanted("y = ‸\n", document="other"))
    warming = asyncio.create_task(desk.completer.prefetcher.warm(wanted(FILE + "‸\n")))
    await turns()
    assert [request.max_tokens for request in desk.engine.requests] == [0]
    desk.engine.go.set()
    assert (await warming).warm


async def test_warming_reads_what_a_key_would_be_answered_from_before_all_else() -> None:
    desk = Desk()
    desk.engine.warm = False
    answer = await desk.completer.prefetcher.warm(wanted(LONG + FILE + "‸\n"))
    assert answer.warm
    short, full = (sum(len(each.text) for each in request.prompt) for request in desk.engine.requests)
    assert 3 * short < full
    assert answer.timings.prompt_evaluated == 6, "both were counted"


async def test_what_was_answered_from_a_short_prompt_is_read_in_full_when_the_suggestion_is_looked_at() -> None:
    desk = Desk(lambda _: ("return width", "\n\nclass"))
    desk.engine.warm = False
    end = await _finish(desk, replace(wanted(LONG + FILE + "‸\n"), automatic=True))
    assert end.text == "return width"
    desk.completer.prefetcher.prefetch(wanted(LONG + FILE + end.text + "‸\n"))
    await desk.generated(2)
    assert [request.max_tokens for request in desk.engine.requests] == [64, 0]
    short, full = (sum(len(each.text) for each in request.prompt) for request in desk.engine.requests)
    assert 3 * short < full


async def test_warming_gives_way_to_a_completion() -> None:
    desk = Desk(at_once=0)
    warming = asyncio.create_task(desk.completer.prefetcher.warm(wanted(FILE + "‸\n")))
    await desk.begun(1)
    asking = asyncio.create_task(desk.ask(FILE + "x‸\n"))
    assert not (await warming).warm
    desk.engine.go.set()
    await asking


async def test_warming_waits_for_what_is_prepared_ahead_of_the_same_document() -> None:
    desk = Desk(at_once=0)
    desk.completer.prefetcher.prefetch(wanted(FILE + "‸\n"))
    await desk.begun(1)
    warming = asyncio.create_task(desk.completer.prefetcher.warm(wanted(FILE + "x‸\n")))
    await turns()
    assert len(desk.engine.requests) == 1
    desk.engine.go.set()
    assert (await warming).warm
    assert (await desk.ask(FILE + "‸\n"))[1] is Origin.KEPT


async def test_an_engine_s_failure_reaches_who_asked_and_is_not_kept() -> None:
    desk = Desk()
    desk.engine.fails = True
    with pytest.raises(EngineFailed):
        await desk.ask(FILE + "‸\n")
    desk.engine.fails = False
    assert (await desk.ask(FILE + "‸\n"))[1] is Origin.MODEL


async def test_the_work_of_every_generation_is_told_once() -> None:
    desk = Desk()
    await desk.ask(FILE + "‸\n")
    await desk.ask(FILE + "r‸\n")
    await desk.completer.close()
    assert len(desk.spent) == 1


LONG = "".join(f"VALUE_{n} = {n * n}\n" for n in range(200))


async def test_a_keystroke_in_a_file_nobody_read_is_answered_from_a_short_prompt() -> None:
    desk = Desk()
    desk.engine.warm = False
    key = replace(wanted(LONG + FILE + "‸\n"), automatic=True)
    await _finish(desk, key)
    await _finish(desk, replace(wanted(LONG + FILE + "x‸\n"), automatic=False))
    desk.engine.warm = True
    await _finish(desk, replace(wanted(LONG + FILE + "y‸\n"), automatic=True))
    short, asked_by_hand, warm = (sum(len(each.text) for each in request.prompt) for request in desk.engine.requests)
    assert 3 * short < asked_by_hand
    assert abs(warm - asked_by_hand) < 10


async def _finish(desk: Desk, what: CompletionJob) -> Completion:
    return (await desk.answer(what))[0]


KEYS = st.lists(
    st.tuples(st.sampled_from(["along", "wrong", "back", "again"]), st.integers(0, 2)), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(KEYS)
@example([("along", 1), ("along", 1), ("back", 0), ("back", 0)])
def test_however_somebody_types_the_newest_request_is_answered_right(keys: list[tuple[str, int]]) -> None:
    """Every last answer is what a fresh model would say, and in the end nothing runs."""

    def model(prompt: str) -> Sequence[str]:
        typed = prompt.rsplit("<|fim_middle|>", 1)[1].rsplit("\n", 1)[-1].lstrip()
        full = "return width * height"
        begin = typed if full.startswith(typed) else ""
        rest = full[len(begin) :] if begin or not typed else "!"
        return [*rest, "\n", "\nx"]

    async def story() -> None:
        desk, line = Desk(model, at_once=3), ""
        full, tasks = "return width * height", []
        for how, pause in keys:
            if how == "along" and full.startswith(line) and len(line) < len(full) - 1:
                line += full[len(line)]
            elif how == "wrong":
                line += "#"
            elif how == "back":
                line = line[:-1]
            tasks.append(asyncio.create_task(desk.ask(FILE + line + "‸\n")))
            for _ in range(pause * 3):
                await asyncio.sleep(0)
        desk.engine.go.set()
        ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert all(isinstance(each, Superseded | tuple) for each in ends), ends
        last = ends[-1]
        assert isinstance(last, tuple)
        if full.startswith(line):
            assert line + last[0].text == full
        await turns()
        assert (desk.engine.running, desk.scheduler.active, desk.scheduler.queued) == (0, 0, 0)
        assert desk.engine.most_running <= 1
        await desk.completer.close()

    asyncio.run(story())
