"""The ceiling of the daemon's memory: what does not fit is not loaded, or takes the place of what nobody uses.

The memory of the daemon and of all its children counts, shared pages once. Before an engine is started, its model's
need is compared with what is left of the ceiling and of the machine: swapping is worse than a clear refusal.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from peft_core.errors import MemoryShortage
from peft_core.files import format_bytes
from peft_core.memory import Memory, family, proportional_bytes, read_memory
from peft_core.settings import Settings
from peft_daemon.models.catalogue import ModelEntry

SHARE = 0.75
"""Of the machine's memory, where the user set no limit: other programs need some as well."""
LOOK_S = 10.0
"""Time between two looks at what is used."""
LOOKS = 2
"""Looks in a row above the ceiling, after which something has to go; what learns in the background goes before."""

log = logging.getLogger("peft_daemon.engines")


class Evictable(Protocol):
    """An engine that can give its memory back and come again with the next request."""

    async def unload_unused(self) -> bool:
        """Unload it if no request uses it; return whether that was done."""


E = TypeVar("E", bound=Evictable)


@dataclass(frozen=True)
class MemoryUse:
    """What is used and what there is, in bytes."""

    counted: int
    """By the daemon and its children."""
    machine: Memory


def count_own() -> MemoryUse:
    """Measure the memory of this process and all its children, and what the machine has; takes milliseconds."""
    return MemoryUse(proportional_bytes(family(os.getpid())), read_memory())


class MemoryCeiling:
    """Watches over the memory of one daemon."""

    def __init__(self, settings: Settings, count: Callable[[], MemoryUse] = count_own) -> None:
        self._count = count
        self.last = MemoryUse(0, read_memory())
        """What was found the last time."""
        self._set = settings.memory_limit_mb * 1_000_000
        self._engines: list[tuple[ModelEntry, Evictable]] = []

    @property
    def limit_bytes(self) -> int:
        """The most that may be used."""
        return self._set or int(self.last.machine.total * SHARE)

    @property
    def _whose(self) -> str:
        if self._set:
            return f"`memory_limit_mb` is {self._set // 1_000_000}"
        holder = "container" if self.last.machine.of_container else "machine"
        return f"three quarters of this {holder}'s {format_bytes(self.last.machine.total)}"

    @property
    def warning(self) -> str:
        """What the status says while more is used than allowed; empty otherwise."""
        if self.last.counted <= self.limit_bytes:
            return ""
        return (
            f"peft-daemon uses {format_bytes(self.last.counted)} of memory, more than {format_bytes(self.limit_bytes)} "
            f"({self._whose}): choose a smaller `model` or `context_tokens`, or set `memory_limit_mb`"
        )

    def watched(self, model: ModelEntry, engine: E) -> E:
        """Let the engine of a model give way to those of others, and return it."""
        self._engines.append((model, engine))
        return engine

    def free_bytes(self) -> int:
        """Measure and return what may still be used; it may be below 0."""
        self.last = self._count()
        return min(self.last.machine.available, self.limit_bytes - self.last.counted)

    def room_for(self, model: ModelEntry) -> Callable[[bool], Awaitable[None]]:
        """Return what an engine of this model calls before each process; true where another has the weights loaded."""

        async def make_room(beside: bool) -> None:
            weights = model.bytes if beside and model.folder is None else 0
            await self._make_room(model, max(0, model.memory_bytes - weights))

        return make_room

    async def _make_room(self, model: ModelEntry, needed: int) -> None:
        while (free := await asyncio.to_thread(self.free_bytes)) < needed:
            if not await self._evict(besides=model):
                break
        else:
            return
        if self.limit_bytes - self.last.counted < needed:
            why, fix = (
                self._whose,
                "Choose a smaller model (`peft-daemon setup` lists those that fit), or set `memory_limit_mb` in the "
                "file that `peft-daemon config --path` shows",
            )
        else:
            why, fix = "other programs use the rest", "Close other programs, or choose a smaller `model`"
        raise MemoryShortage(
            f"{model.id} does not fit into memory",
            why=f"it takes about {format_bytes(needed)}, and {format_bytes(max(0, free))} are free ({why})",
            fix=fix,
        )

    async def _evict(self, besides: ModelEntry | None = None) -> bool:
        """Unload one engine that nobody uses; return whether there was one."""
        for model, engine in self._engines:
            if model is not besides and await engine.unload_unused():
                log.info("%s is unloaded: memory is needed", model.id)
                return True
        return False

    async def watch(self) -> None:
        """Unload what nobody uses while there is too much, until cancelled."""
        above = 0
        while True:
            await asyncio.sleep(LOOK_S)
            await asyncio.to_thread(self.free_bytes)
            above = above + 1 if self.last.counted > self.limit_bytes else 0
            if above >= LOOKS and not await self._evict() and above == LOOKS:
                log.warning("%s", self.warning)
