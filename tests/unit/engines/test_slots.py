"""Which slot a prompt goes to, and how much of it need not be read again."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from peft_daemon.engines.llamacpp.slots import Slot, Slots

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


async def test_a_prompt_that_shares_little_gets_the_slot_that_was_not_used_for_longest() -> None:
    slots = Slots(2)
    for tokens in ([1, *range(10, 50)], [1, *range(60, 99)]):
        async with slots.take(tokens, NONE) as slot:
            slot.holds(tokens, NONE)
    held = [slot.tokens[1] for slot in sorted(slots.free, key=lambda slot: slot.used)]
    assert held == [10, 60]
    async with slots.take([1, *range(10, 40)], NONE) as slot:
        assert slot.tokens[1] == 10
    # All files begin alike: with token 1. The other document was used last but one.
    async with slots.take([1, *range(200, 240)], NONE) as slot:
        assert slot.tokens[1] == 60


async def test_a_slot_can_be_kept_from_requests_only_while_it_is_free() -> None:
    slots = Slots(1)
    (slot,) = slots.free
    async with slots.hold(slot) as free:
        assert free
        waiting = asyncio.ensure_future(slots.take([1], NONE).__aenter__())
        await asyncio.sleep(0)
        assert not waiting.done()
    async with slots.hold(slot) as free:
        assert not free, "it is promised to the request that waits"
    assert await waiting is slot
    async with slots.hold(slot) as free:
        assert not free


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=20))
def test_of_an_answer_only_what_is_in_the_cache_is_counted(batches: list[tuple[int, bool]]) -> None:
    """The server writes tokens in batches, tells them one by one, and of some (half a character) nothing."""
    slot, cache, written = Slot(0), [1, 2], 0
    slot.holds(cache, NONE)
    newest: list[int] = []
    for size, told in batches:
        tokens = list(range(written + 10, written + 10 + size))
        written += size
        cache += [*newest, *tokens[:-1]]
        newest = tokens[-1:]
        for token in tokens if told else tokens[1:]:
            slot.wrote([token], written)
            assert slot.tokens == cache[: len(slot.tokens)]
    if all(told for _, told in batches):
        assert len(slot.tokens) == 2 + sum(size for size, _ in batches[:-1])
