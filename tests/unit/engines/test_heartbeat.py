"""When a child is taken for hung, and when not."""

from __future__ import annotations

import asyncio

import pytest

from peft_daemon.engines.heartbeat import Heartbeat, HeartbeatLimits

LIMITS = HeartbeatLimits(quiet_s=0.01, ping_s=0.01, missed_pings=3, stalled_s=0.1)


class PlayedChild:
    """Counts the pings it gets; answers them unless it is mute."""

    def __init__(self) -> None:
        self.pings = 0
        self.mute = self.stopped = False
        self.error: Exception | None = None
        self.pinged = asyncio.Event()
        self.heartbeat = Heartbeat(self.ping, lambda: self.stopped, LIMITS)

    async def ping(self) -> None:
        self.pings += 1
        self.pinged.set()
        if self.error:
            raise self.error
        if self.mute:
            await asyncio.Event().wait()


@pytest.fixture
async def child() -> PlayedChild:
    return PlayedChild()


async def another_has_hung() -> None:
    """As long as a child takes that begins to work now and answers no ping."""
    other = PlayedChild()
    other.mute = True
    with other.heartbeat.working():
        await other.heartbeat.wait_until_hung()


async def test_a_child_that_answers_nothing_while_it_has_work_hangs(child: PlayedChild) -> None:
    child.mute = True
    with child.heartbeat.working():
        assert "answered nothing" in await child.heartbeat.wait_until_hung()
    assert child.pings == LIMITS.missed_pings
    assert child.heartbeat.verdict


async def test_a_stopped_process_is_known_at_the_first_unanswered_ping(child: PlayedChild) -> None:
    child.mute = child.stopped = True
    with child.heartbeat.working():
        assert "signal" in await child.heartbeat.wait_until_hung()
    assert child.pings == 1


async def test_it_is_noticed_though_the_request_that_met_it_has_ended(child: PlayedChild) -> None:
    child.mute = True
    with child.heartbeat.working():
        pass
    assert await child.heartbeat.wait_until_hung()


async def test_one_late_answer_is_no_hang(child: PlayedChild) -> None:
    child.mute = True
    with child.heartbeat.working():
        hanging = asyncio.create_task(child.heartbeat.wait_until_hung())
        while child.pings < LIMITS.missed_pings - 1:
            await asyncio.sleep(0)
        child.mute = False
        seen = child.pings
        while child.pings < seen + LIMITS.missed_pings:
            await asyncio.sleep(0)
        child.mute = True
        assert await hanging, "the ones before were forgotten, and it is noticed when it hangs for good"


async def test_a_child_that_gets_on_is_not_even_asked(child: PlayedChild) -> None:
    with child.heartbeat.working():
        hanging = asyncio.create_task(child.heartbeat.wait_until_hung())
        other = asyncio.create_task(another_has_hung())
        while not other.done():
            child.heartbeat.beat()
            await asyncio.sleep(0)
        assert child.pings == 0
        hanging.cancel()


async def test_a_child_without_work_is_left_alone(child: PlayedChild) -> None:
    hanging = asyncio.create_task(child.heartbeat.wait_until_hung())
    with child.heartbeat.working():
        child.mute = False
    await child.pinged.wait()
    child.mute = True
    await another_has_hung()
    assert child.pings == 1
    assert not hanging.done()
    hanging.cancel()


async def test_a_child_that_answers_and_does_nothing_for_long_hangs(child: PlayedChild) -> None:
    with child.heartbeat.working():
        assert "done nothing" in await child.heartbeat.wait_until_hung()


async def test_a_child_that_cannot_be_asked_is_not_taken_for_hung(child: PlayedChild) -> None:
    child.error = OSError(24, "Too many open files")
    with child.heartbeat.working():
        hanging = asyncio.create_task(child.heartbeat.wait_until_hung())
        while child.pings < LIMITS.missed_pings + 2:
            await asyncio.sleep(0)
        assert not hanging.done()
        hanging.cancel()
