"""The content of a llama.cpp server's slots, so that prompts are read in steps without losing cached tokens.

llama.cpp notices a cancelled request only between two batches, and takes up to two of them to act on it. So a prompt is
sent in steps. Each step is a request that writes nothing, and reading stops at the next step when a client hangs up. A
step that ended before the slot's cached tokens would discard them, so this module records which tokens a slot holds.
The record may have fewer tokens than the server, never more.
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
    """A slot of the server, with the tokens and adapters that its KV state was computed for, as far as is known."""

    number: int
    adapters: SlotAdapters = ()
    tokens: list[int] = field(default_factory=list)
    applied: SlotAdapters | None = None
    """Adapters of the last request that the server certainly began in this slot; None where that is unknown. The server
    compares the next request's adapters with them."""
    used: int = 0
    """Number of the slot's last use; the largest is the latest."""
    _newest: list[int] = field(default_factory=list)
    """Tokens of the answer that are written, but perhaps not in the cache yet."""
    _reported: int = 0
    """Tokens of the answer that the server has sent."""
    _announced: int = 0
    """Tokens of the answer that the server has written, by its own count."""
    _whole: bool = True
    """Whether the server has sent every token of the answer so far."""

    def shared(self, tokens: Sequence[int], adapters: SlotAdapters) -> int:
        """Return how many tokens at the beginning of ``tokens`` need not be read again."""
        return shared_length(self.tokens, tokens) if adapters == self.adapters else 0

    def holds(self, tokens: Sequence[int], adapters: SlotAdapters) -> None:
        """Record the slot's new content."""
        self.tokens, self.adapters = list(tokens), adapters
        self._newest, self._reported, self._announced, self._whole = [], 0, 0, True

    def wrote(self, tokens: Sequence[int], announced: int) -> None:
        """Record ``tokens`` of the answer; ``announced`` is how many tokens the server has written in total.

        Tokens are certainly in the cache when the next ones are written. The server does not send tokens that complete
        no character; after such a gap nothing more is recorded.
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
        """Return how many tokens at the beginning of ``tokens`` the best slot holds."""
        return max(slot.shared(tokens, adapters) for slot in self._all)

    @asynccontextmanager
    async def take(self, tokens: Sequence[int], adapters: SlotAdapters) -> AsyncGenerator[Slot, None]:
        """Wait for a free slot and reserve it for the block.

        The slot that holds most of ``tokens`` is taken if it shares at least half of the shorter sequence, because many
        files begin alike; else the least recently used slot.
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
