"""What a llama.cpp server's slots hold, so that a prompt can be read in steps without losing what is cached.

llama.cpp looks for a cancelled request only between two steps of reading, and takes up to two of them to act on it.
So a prompt is sent step by step, each a request of its own that is not to write anything: a client that hangs up
stops it at the next step. A step that ended before what the slot holds would throw that away, hence this account.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import takewhile

Adapters = tuple[tuple[int, float], ...]


@dataclass(eq=False)
class Slot:
    """One place of the server, and what it holds the KV state of: a prompt with its answer, read with some adapters."""

    number: int
    adapters: Adapters = ()
    tokens: list[int] = field(default_factory=list)

    def shared(self, tokens: Sequence[int], adapters: Adapters) -> int:
        """How many of ``tokens``, from the first on, need not be read again."""
        if adapters != self.adapters:
            return 0
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self.tokens, tokens, strict=False)))

    def holds(self, tokens: Sequence[int], adapters: Adapters) -> None:
        """Note what it holds from now on."""
        self.tokens, self.adapters = list(tokens), adapters


class Slots:
    """The slots of one server; each is given to one request at a time."""

    def __init__(self, count: int) -> None:
        self._free = [Slot(number) for number in range(count)]
        self._waiting = asyncio.Semaphore(count)

    @asynccontextmanager
    async def take(self, tokens: Sequence[int], adapters: Adapters) -> AsyncGenerator[Slot, None]:
        """The free slot that holds most of ``tokens``, until the block ends; waits for one."""
        async with self._waiting:
            slot = max(self._free, key=lambda slot: slot.shared(tokens, adapters))
            self._free.remove(slot)
            try:
                yield slot
            finally:
                self._free.append(slot)
