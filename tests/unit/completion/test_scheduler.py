"""The scheduler's promises: the newest request of a document wins, and a slot is never lost."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_daemon.completion.scheduler import NoFreeSlot, Scheduler, Superseded


async def endless(closed: asyncio.Event) -> AsyncGenerator[int, None]:
    try:
        while True:
            yield 1
            await asyncio.sleep(0)
    finally:
        closed.set()


async def test_a_newer_request_ends_the_older_one_and_closes_its_stream() -> None:
    scheduler, closed, running = Scheduler(1), asyncio.Event(), asyncio.Event()

    async def old() -> str:
        try:
            with scheduler.newest("doc") as ticket:
                async for _ in ticket.guard(endless(closed)):
                    running.set()
        except Superseded:
            assert closed.is_set()
            return "superseded"
        return "finished"

    task = asyncio.create_task(old())
    await running.wait()
    with scheduler.newest("doc"):
        assert await task == "superseded"


async def test_a_superseded_request_does_nothing_more_though_what_it_waited_for_comes_just_then() -> None:
    scheduler, waiting, come = Scheduler(1), asyncio.Event(), asyncio.Event()
    went_on = False

    async def old_items() -> AsyncGenerator[int, None]:
        nonlocal went_on
        waiting.set()
        await come.wait()
        went_on = True
        yield 1

    async def old() -> None:
        with scheduler.newest("doc") as ticket:
            async for _ in ticket.guard(old_items()):
                pass

    task = asyncio.create_task(old())
    await waiting.wait()
    with scheduler.newest("doc"):
        come.set()
        with pytest.raises(Superseded):
            await task
    assert not went_on


async def test_a_superseded_request_that_failed_just_then_leaves_nothing_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scheduler = Scheduler(1)

    async def failing() -> None:
        raise ValueError("no")

    with scheduler.newest("doc") as ticket, scheduler.newest("doc"):
        with pytest.raises(Superseded):
            await ticket.until_superseded(asyncio.ensure_future(failing()))
        await asyncio.sleep(0)
    gc.collect()
    assert not caplog.records


async def test_a_superseded_request_that_is_cancelled_too_closes_its_stream_first() -> None:
    scheduler = Scheduler(1)
    running, cleaning, clean, closed = (asyncio.Event() for _ in range(4))

    async def slow() -> AsyncGenerator[int, None]:
        try:
            yield 1
            running.set()
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await clean.wait()
            closed.set()

    async def old() -> None:
        with scheduler.newest("doc") as ticket:
            async for _ in ticket.guard(slow()):
                pass

    task = asyncio.create_task(old())
    await running.wait()
    with scheduler.newest("doc"):
        await cleaning.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        clean.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert closed.is_set()


async def test_requests_without_a_document_never_supersede_each_other() -> None:
    scheduler, closed = Scheduler(1), asyncio.Event()
    with scheduler.newest(None) as ticket, scheduler.newest(None):
        async for _ in ticket.guard(endless(closed)):
            break


async def test_slots_are_given_in_order_of_arrival() -> None:
    scheduler, order = Scheduler(1), []

    async def one(n: int) -> None:
        async with scheduler.slot():
            await asyncio.sleep(0)
            order.append(n)

    await asyncio.gather(*(one(n) for n in range(5)))
    assert order == [0, 1, 2, 3, 4]


async def test_cancelling_a_waiting_request_gives_its_slot_back() -> None:
    scheduler = Scheduler(1)

    async def wait() -> None:
        async with scheduler.slot():
            pass

    async with scheduler.slot():
        waiting = asyncio.create_task(wait())
        while not scheduler.queued:
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.wait_for(wait(), 1)
    assert (scheduler.active, scheduler.queued) == (0, 0)


@pytest.mark.parametrize("slots", [1, 2])
async def test_a_background_generation_gives_way_to_one_that_somebody_waits_for(slots: int) -> None:
    scheduler, begun, order = Scheduler(slots), asyncio.Event(), []

    async def spare() -> None:
        async with scheduler.background_slot(lambda: task.cancel() and None):
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                order.append("spare ended")

    task = asyncio.create_task(spare())
    await begun.wait()
    async with scheduler.slot():
        order.append("served")
        await asyncio.sleep(0)
    assert order == (["spare ended", "served"] if slots == 1 else ["served", "spare ended"])


@pytest.mark.parametrize("slots", [1, 2])
async def test_of_two_background_generations_the_newer_one_goes_on(slots: int) -> None:
    scheduler, begun = Scheduler(slots), asyncio.Event()

    async def older() -> None:
        async with scheduler.background_slot(lambda: task.cancel() and None):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(older())
    await begun.wait()
    async with scheduler.background_slot(lambda: None):
        await asyncio.gather(task, return_exceptions=True)
        assert (task.cancelled(), scheduler.active) == (True, 1)


async def test_a_background_generation_that_somebody_waits_for_now_is_left_alone() -> None:
    scheduler, told = Scheduler(1), []
    async with scheduler.background_slot(lambda: told.append(1)) as slot:
        slot.claim()
        waiting = asyncio.create_task(_take(scheduler))
        while not scheduler.queued:
            await asyncio.sleep(0)
    await waiting
    assert told == []


@pytest.mark.parametrize("slots", [1, 2])
async def test_there_is_no_background_slot_while_somebody_waits_though_one_is_free(slots: int) -> None:
    scheduler = Scheduler(slots)
    async with scheduler.slot():
        with pytest.raises(NoFreeSlot):
            async with scheduler.background_slot(lambda: None):
                pass
    async with scheduler.background_slot(lambda: None):
        assert scheduler.active == 1


async def _take(scheduler: Scheduler) -> None:
    async with scheduler.slot():
        pass


@given(
    slots=st.integers(1, 3),
    plan=st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.booleans()), min_size=1, max_size=20),
)
def test_never_more_than_slots_are_active_and_no_slot_is_lost(slots: int, plan: list[tuple[bool, int, bool]]) -> None:
    async def story() -> None:
        scheduler = Scheduler(slots)

        async def one(spare: bool, steps: int) -> None:
            me = asyncio.current_task()
            assert me is not None
            placing = scheduler.background_slot(lambda: me.cancel() and None) if spare else scheduler.slot()
            try:
                async with placing:
                    assert scheduler.active <= slots
                    for _ in range(steps):
                        await asyncio.sleep(0)
            except NoFreeSlot:
                assert spare

        tasks = []
        for spare, steps, cancel in plan:
            task = asyncio.create_task(one(spare, steps))
            tasks.append(task)
            await asyncio.sleep(0)
            if cancel:
                task.cancel()
        ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert not [each for each in ends if isinstance(each, AssertionError)]
        assert (scheduler.active, scheduler.queued) == (0, 0)
        for _ in range(slots):
            await asyncio.wait_for(_take(scheduler), 1)

    asyncio.run(story())


async def test_a_document_has_one_newest_request_for_the_engines_of_a_machine_together() -> None:
    fill, closed, running = Scheduler(1), asyncio.Event(), asyncio.Event()
    sentences = Scheduler(1, beside=fill)

    async def old(scheduler: Scheduler) -> None:
        with scheduler.newest("doc") as ticket:
            async for _ in ticket.guard(endless(closed)):
                running.set()

    for older, newer in ((fill, sentences), (sentences, fill)):
        task = asyncio.create_task(old(older))
        await running.wait()
        running.clear()
        with newer.newest("doc"), pytest.raises(Superseded):
            await task


async def test_background_work_gives_way_to_requests_for_another_engine_of_the_machine() -> None:
    fill = Scheduler(1)
    sentences = Scheduler(1, beside=fill)
    gave_way = asyncio.Event()
    async with fill.background_slot(gave_way.set), sentences.slot():
        assert gave_way.is_set()
    async with sentences.slot():
        with pytest.raises(NoFreeSlot):
            async with fill.background_slot(lambda: None):
                pass
    async with fill.background_slot(lambda: None):
        pass


async def test_slots_are_each_engines_own() -> None:
    fill = Scheduler(1)
    sentences = Scheduler(1, beside=fill)
    async with fill.slot(), sentences.slot():
        assert (fill.active, sentences.active) == (1, 1)
