"""The scheduler's promises: the newest request of a document wins, and a place is never lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_daemon.scheduler import Scheduler, Superseded


async def endless(closed: asyncio.Event) -> AsyncGenerator[int, None]:
    try:
        while True:
            yield 1
            await asyncio.sleep(0)
    finally:
        closed.set()


async def test_a_newer_request_ends_the_one_being_decoded_and_closes_its_stream() -> None:
    scheduler, closed, running = Scheduler(1), asyncio.Event(), asyncio.Event()

    async def old() -> str:
        try:
            async with scheduler.admit("doc") as ticket:
                async for _ in ticket.guard(endless(closed)):
                    running.set()
        except Superseded:
            return "superseded"
        return "finished"

    task = asyncio.create_task(old())
    await running.wait()
    async with scheduler.admit("doc"):
        assert closed.is_set(), "the old stream must be closed before its place is given on"
    assert await task == "superseded"


async def test_a_newer_request_ends_one_that_still_waits() -> None:
    scheduler = Scheduler(1)
    async with scheduler.admit("other"):

        async def wait() -> None:
            async with scheduler.admit("doc"):
                pass

        waiting = asyncio.create_task(wait())
        while not scheduler.queued:
            await asyncio.sleep(0)
        newest = asyncio.create_task(wait())
        with pytest.raises(Superseded):
            await waiting
    await newest


async def test_requests_without_a_document_never_supersede_each_other() -> None:
    scheduler, order = Scheduler(1), []

    async def one(n: int) -> None:
        async with scheduler.admit(None):
            await asyncio.sleep(0)
            order.append(n)

    await asyncio.gather(*(one(n) for n in range(5)))
    assert order == [0, 1, 2, 3, 4]


async def test_cancelling_a_waiting_request_gives_its_place_back() -> None:
    scheduler = Scheduler(1)

    async def wait() -> None:
        async with scheduler.admit(None):
            pass

    async with scheduler.admit(None):
        waiting = asyncio.create_task(wait())
        while not scheduler.queued:
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.wait_for(wait(), 1)
    assert (scheduler.active, scheduler.queued) == (0, 0)


@given(
    slots=st.integers(1, 3),
    plan=st.lists(
        st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 3), st.booleans()), min_size=1, max_size=20
    ),
)
def test_every_request_is_answered_and_never_more_than_slots_are_active(
    slots: int, plan: list[tuple[str | None, int, bool]]
) -> None:
    async def story() -> None:
        scheduler = Scheduler(slots)
        answers: list[str] = []

        async def one(document: str | None, steps: int) -> None:
            try:
                async with scheduler.admit(document) as ticket:
                    assert scheduler.active <= slots

                    async def items() -> AsyncGenerator[int, None]:
                        for n in range(steps):
                            await asyncio.sleep(0)
                            yield n

                    async for _ in ticket.guard(items()):
                        pass
                answers.append("done")
            except Superseded:
                answers.append("superseded")
            except asyncio.CancelledError:
                answers.append("cancelled")

        tasks = []
        for document, steps, cancel in plan:
            task = asyncio.create_task(one(document, steps))
            tasks.append(task)
            await asyncio.sleep(0)
            if cancel:
                task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert (scheduler.active, scheduler.queued) == (0, 0)
        async with scheduler.admit("a"):
            pass

    asyncio.run(story())
