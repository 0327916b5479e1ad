"""Work that must not be left half done is waited for, however often whoever waits is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from peft_core.tasks import end, finish


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
    waiting = asyncio.create_task(finish(work.run()))
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
    assert await finish(work.run()) == "result"

    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await finish(fail())


async def test_what_is_ended_is_cancelled_once_and_cleans_up_to_its_end() -> None:
    work = Work()
    task = asyncio.create_task(work.run())
    await turns()
    ending = asyncio.create_task(end(task))
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
    await end(task)
    del task
    await turns()
    assert not caplog.records, "asyncio complains of an error that nobody looked at"
