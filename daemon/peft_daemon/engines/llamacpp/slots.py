"""The known content of a llama.cpp server's slots, so that prompts are read in steps without losing cached tokens.

llama.cpp notices a cancelled request only between two batches, and takes up to two of them to act on it. So a prompt is
sent in steps, each a request of its own that writes nothing: a client that hangs up stops it at the next step. A step
that ends before the slot's cached tokens would discard them, hence this account. It may know less than the server
holds, never more.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

SlotAdapters = tuple[tuple[int, float], ...]


def shared_length(left: Sequence[int], right: Sequence[int]) -> int:
    """Return the length of the common beginning of two token sequences."""
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
    """A slot of the server and its known KV state: the tokens of a prompt with its answer, and the adapters."""

    number: int
    adapters: SlotAdapters = ()
    tokens: list[int] = field(default_factory=list)
    applied: SlotAdapters | None = None
    """Adapters of the last request that the server surely began here; it compares the next request's with them."""
    used: int = 0
    """Order of the slot's last use; higher is later."""
    _newest: list[int] = field(default_factory=list)
    _reported: int = 0
    _announced: int = 0
    _whole: bool = True

    def shared(self, tokens: Sequence[int], adapters: SlotAdapters) -> int:
        """Return how many tokens at the beginning of ``tokens`` need not be read again."""
        return shared_length(self.tokens, tokens) if adapters == self.adapters else 0

    def holds(self, tokens: Sequence[int], adapters: SlotAdapters) -> None:
        """Record the slot's new content."""
        self.tokens, self.adapters = list(tokens), adapters
        self._newest, self._reported, self._announced, self._whole = [], 0, 0, True

    def wrote(self, tokens: Sequence[int], announced: int) -> None:
        """Record ``tokens`` of the answer; the server has written ``announced`` tokens in total by now.

        They are in the cache for certain when the next ones are written. The server does not report tokens that
        complete no character: nothing is recorded after such a gap.
        """
        if announced > self._announced:
            self._whole = self._whole and self._reported == self._announced
            if self._whole:
                self.tokens += self._newest
            self._newest, self._announced = [], announced
        self._newest += tokens
        self._reported += len(tokens)


class Slots:
    """The slots of one server; each serves one request at a time."""

    def __init__(self, count: int) -> None:
        self._all = tuple(Slot(number) for number in range(count))
        self._free = list(self._all)
        self._waiting = asyncio.Semaphore(count)
        self._turns = itertools.count(1)

    @property
    def free(self) -> tuple[Slot, ...]:
        """The slots that serve no request now."""
        return tuple(self._free)

    def most_shared(self, tokens: Sequence[int], adapters: SlotAdapters) -> int:
        """Return the largest number of ``tokens`` that a slot holds."""
        return max(slot.shared(tokens, adapters) for slot in self._all)

    @asynccontextmanager
    async def take(self, tokens: Sequence[int], adapters: SlotAdapters) -> AsyncGenerator[Slot, None]:
        """Wait for a free slot and reserve it for the block.

        It is the one that holds most of ``tokens``, if that is at least half of the shorter sequence, as many files
        begin alike; else the least recently used one.
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
        """Reserve ``slot`` for the block if it is free; yields whether it is."""
        if self._waiting.locked() or slot not in self._free:
            yield False
            return
        async with self._waiting:
            self._free.remove(slot)
            try:
                yield True
            finally:
                self._free.append(slot)
