"""What a llama.cpp server's slots hold, so that a prompt can be read in steps without losing what is cached.

llama.cpp looks for a cancelled request only between two steps of reading, and takes up to two of them to act on it.
So a prompt is sent step by step, each a request of its own that is not to write anything: a client that hangs up
stops it at the next step. A step that ended before what the slot holds would throw that away, hence this account.
It may know less than the server holds, never more.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

SlotAdapters = tuple[tuple[int, float], ...]


def shared_length(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences have in common, from the first on."""
    known, unknown = 0, min(len(left), len(right))
    if left[:unknown] == right[:unknown]:
        return unknown
    while unknown - known > 1:
        middle = (known + unknown) // 2
        if left[known:middle] == right[known:middle]:
            known = middle
        else:
            unknown = middle
    return known


@dataclass(eq=False)
class Slot:
    """One place of the server, and what it holds the KV state of: a prompt with its answer, read with some adapters."""

    number: int
    adapters: SlotAdapters = ()
    tokens: list[int] = field(default_factory=list)
    applied: SlotAdapters | None = None
    """The adapters of the last request the server is known to have begun here; it compares the next one's with them."""
    used: int = 0
    """Grows with each request it was given to."""
    _newest: list[int] = field(default_factory=list)
    _told: int = 0
    _announced: int = 0
    _whole: bool = True

    def shared(self, tokens: Sequence[int], adapters: SlotAdapters) -> int:
        """How many of ``tokens``, from the first on, need not be read again."""
        return shared_length(self.tokens, tokens) if adapters == self.adapters else 0

    def holds(self, tokens: Sequence[int], adapters: SlotAdapters) -> None:
        """Note what it holds from now on."""
        self.tokens, self.adapters = list(tokens), adapters
        self._newest, self._told, self._announced, self._whole = [], 0, 0, True

    def wrote(self, tokens: Sequence[int], announced: int) -> None:
        """Note ``tokens`` of the answer; by now the server has written ``announced`` of them in all.

        They are in the cache for certain when the next are written. A token that completes no character is never
        told of: nothing is counted from such a gap on.
        """
        if announced > self._announced:
            self._whole = self._whole and self._told == self._announced
            if self._whole:
                self.tokens += self._newest
            self._newest, self._announced = [], announced
        self._newest += tokens
        self._told += len(tokens)


class Slots:
    """The slots of one server; each is given to one request at a time."""

    def __init__(self, count: int) -> None:
        self._all = tuple(Slot(number) for number in range(count))
        self._free = list(self._all)
        self._waiting = asyncio.Semaphore(count)
        self._turns = itertools.count(1)

    @property
    def free(self) -> tuple[Slot, ...]:
        """Those no request has now."""
        return tuple(self._free)

    def most_shared(self, tokens: Sequence[int], adapters: SlotAdapters) -> int:
        """How many of ``tokens`` the slot that holds most of them holds."""
        return max(slot.shared(tokens, adapters) for slot in self._all)

    @asynccontextmanager
    async def take(self, tokens: Sequence[int], adapters: SlotAdapters) -> AsyncGenerator[Slot, None]:
        """A slot until the block ends; waits for one.

        It is the free one that holds most of ``tokens``, if that is half of the shorter of both: many files begin
        alike. Else it is the one that was not used for longest.
        """
        async with self._waiting:
            slot = max(self._free, key=lambda slot: slot.shared(tokens, adapters))
            if 2 * slot.shared(tokens, adapters) < min(len(tokens), len(slot.tokens)):
                slot = min(self._free, key=lambda slot: slot.used)
            self._free.remove(slot)
            try:
                yield slot
            finally:
                slot.used = next(self._turns)
                self._free.append(slot)

    @asynccontextmanager
    async def hold(self, slot: Slot) -> AsyncGenerator[bool, None]:
        """Keep requests from ``slot`` until the block ends, if it is free now; whether it is."""
        if self._waiting.locked() or slot not in self._free:
            yield False
            return
        async with self._waiting:
            self._free.remove(slot)
            try:
                yield True
            finally:
                self._free.append(slot)
