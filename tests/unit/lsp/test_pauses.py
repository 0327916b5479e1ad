"""Of the requests that wait for a pause in typing only the newest of each document goes on."""

from __future__ import annotations

import asyncio

import pytest

from peft_lsp.pauses import Debounce

FOREVER = 1000.0


async def test_a_pause_passes() -> None:
    assert await Debounce().over("a", 0.001)


async def test_a_newer_request_ends_an_older_pause_but_not_that_of_another_document() -> None:
    pauses = Debounce()
    older, other = (asyncio.create_task(pauses.over(key, FOREVER)) for key in ("a", "b"))
    await asyncio.sleep(0)
    newer = asyncio.create_task(pauses.over("a", 0.001))
    assert not await older
    assert await newer
    assert not other.done()
    other.cancel()


async def test_without_a_pause_nothing_is_awaited_and_an_older_one_still_ends() -> None:
    pauses = Debounce()
    older = asyncio.create_task(pauses.over("a", FOREVER))
    await asyncio.sleep(0)
    straight = pauses.over("a", 0)
    with pytest.raises(StopIteration) as end:
        straight.send(None)
    assert end.value.value is True
    assert not await older


async def test_a_cancelled_pause_leaves_nothing_behind() -> None:
    pauses = Debounce()
    one = asyncio.create_task(pauses.over("a", FOREVER))
    await asyncio.sleep(0)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    assert not pauses._waiting
