"""Work that must not be left half done is waited for, however often whoever waits is cancelled."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context, ContextVar

import pytest

from peft_core.tasks import BackgroundTasks, cancel_and_wait, run_shielded, wait_for_event


class Work:
    """Two steps, the second one at its end or while it cleans up."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.cancellations = 0
        self.done = False

    async def run(self) -> str:
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancellations += 1
            await self.gate.wait()  # it cleans up
            raise
        finally:
            self.done = True
        return "result"


async def turns(number: int = 3) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_what_has_to_be_finished_is_finished_though_it_was_cancelled() -> None:
    work = Work()
    waiting = asyncio.create_task(run_shielded(work.run()))
    for _ in range(3):
        await turns()
        waiting.cancel()
    await turns()
    assert not waiting.done()
    work.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (work.done, work.cancellations) == (True, 0)


async def test_what_is_finished_gives_its_result_or_its_error() -> None:
    work = Work()
    work.gate.set()
    assert await run_shielded(work.run()) == "result"

    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await run_shielded(fail())


async def test_what_is_ended_is_cancelled_once_and_cleans_up_to_its_end() -> None:
    work = Work()
    task = asyncio.create_task(work.run())
    await turns()
    ending = asyncio.create_task(cancel_and_wait(task))
    for _ in range(3):
        await turns()
        ending.cancel()
    await turns()
    assert not ending.done()
    work.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert (work.done, work.cancellations) == (True, 1)


async def test_ending_what_has_ended_waits_for_nothing_and_hears_its_error(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("no")

    task = asyncio.create_task(fail())
    await asyncio.wait((task,))
    await cancel_and_wait(task)
    del task
    await turns()
    assert not caplog.records, "asyncio complains of an error that nobody looked at"


def background(*expected: type[BaseException]) -> BackgroundTasks:
    return BackgroundTasks(logging.getLogger("test"), "it failed", *expected)


async def fail(error: BaseException) -> None:
    raise error


async def test_a_failure_in_the_background_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    tasks = background(ValueError)
    tasks.spawn(fail(KeyError("unforeseen")))
    tasks.spawn(fail(ValueError("expected")))
    await tasks.wait()
    assert [(each.message, str(each.exc_info[1])) for each in caplog.records if each.exc_info] == [
        ("it failed", "'unforeseen'")
    ]
    assert len(tasks) == 0


async def test_waiting_includes_tasks_that_are_spawned_meanwhile_but_not_for_ever() -> None:
    tasks, work = background(), Work()

    async def spawn_another() -> None:
        tasks.spawn(work.run())

    tasks.spawn(spawn_another())
    await tasks.wait(timeout_s=0.01)
    assert not work.done
    work.gate.set()
    await tasks.wait()
    assert work.done


async def test_tasks_in_the_background_are_ended_when_they_have_cleaned_up() -> None:
    tasks, work = background(), Work()
    tasks.spawn(work.run())
    await turns()
    ending = asyncio.create_task(tasks.end())
    await turns()
    assert not ending.done()
    work.gate.set()
    await ending
    assert (work.done, work.cancellations, len(tasks)) == (True, 1, 0)


async def test_tasks_with_a_context_of_their_own_do_not_see_that_of_their_spawner() -> None:
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[str] = []

    async def look() -> None:
        await asyncio.sleep(0)
        seen.append(request.get())

    request.set("abc")
    log = logging.getLogger(__name__)
    for tasks in (BackgroundTasks(log, "failed"), BackgroundTasks(log, "failed", context=Context())):
        tasks.spawn(look())
        tasks.spawn(look())
        await tasks.wait()
    assert seen == ["abc", "abc", "none", "none"]


@pytest.mark.parametrize("seconds", [None, 60.0])
async def test_a_cancellation_that_comes_with_the_event_is_not_lost(seconds: float | None) -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(wait_for_event(event, seconds))
    await asyncio.sleep(0.01)
    event.set()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_event_is_waited_for_at_most_so_long() -> None:
    event = asyncio.Event()
    await wait_for_event(event, 0.001)
    assert not event.is_set()
    event.set()
    await wait_for_event(event, None)
