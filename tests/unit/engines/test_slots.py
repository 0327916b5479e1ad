"""Which slot a prompt goes to, and how much of it need not be read again."""

from __future__ import annotations

import asyncio

from peft_daemon.engines.slots import Slot, Slots

NONE, SOME = (), ((0, 1.0),)


def test_what_is_shared_is_the_common_beginning() -> None:
    slot = Slot(0)
    assert slot.shared([1, 2], NONE) == 0
    slot.holds([1, 2, 3], NONE)
    assert [slot.shared(tokens, NONE) for tokens in ([1, 2, 3, 4], [1, 2], [1, 9, 3], [9])] == [3, 2, 1, 0]


def test_nothing_is_shared_under_other_adapters() -> None:
    slot = Slot(0)
    slot.holds([1, 2, 3], SOME)
    assert slot.shared([1, 2, 3], NONE) == 0
    assert slot.shared([1, 2, 3], ((0, 0.5),)) == 0
    assert slot.shared([1, 2, 3], SOME) == 3


async def test_a_prompt_goes_to_the_free_slot_that_holds_most_of_it() -> None:
    slots = Slots(2)
    async with slots.take([1, 2], NONE) as first, slots.take([7, 8], NONE) as second:
        assert first.number != second.number
        first.holds([1, 2], NONE)
        second.holds([7, 8], NONE)
    for tokens, wanted in (([7, 8, 9], second), ([1, 2, 3], first), ([7], second)):
        async with slots.take(tokens, NONE) as slot:
            assert slot is wanted


async def test_one_more_request_than_slots_waits_for_one() -> None:
    slots = Slots(1)
    async with slots.take([1], NONE):
        waiting = asyncio.ensure_future(slots.take([1], NONE).__aenter__())
        await asyncio.sleep(0)
        assert not waiting.done()
    assert (await waiting).number == 0
