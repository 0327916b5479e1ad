"""When a slot's KV state is saved to disk and when a saved one is put into a slot.

Saved: before a slot is given to a prompt that throws away much that is saved nowhere, when a slot was not used for a
moment, and at the end. Put back: when a saved state makes much of a prompt unnecessary to read. Neither may break a
request: what fails is told to the log, and the prompt is read.

llama.cpp works off such an order later if the slot is still busy with a request that was cancelled, and then it is of
whatever the slot holds by that time. So an order is always waited for, even by a request that is cancelled meanwhile,
before the slot is given on. llama.cpp does not know either which adapters a state was read with: it compares those of
the slot's last request. So a request with the right ones goes first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from peft_core.child_process import ChildGone
from peft_core.errors import PeftDaemonError
from peft_core.tasks import finish
from peft_daemon.engines.llamacpp.kv_states import WORTH_SAVING, Found, KvStates, Weights
from peft_daemon.engines.llamacpp.slots import Adapters, Slot, Slots

WORTH_RESTORING = 48
"""Tokens that need not be read; reading them takes many times as long as reading the state from disk."""
UNUSED_S = 2.0
"""A slot that no request took for so long is saved."""

Call = Callable[[str, object], Awaitable[Any]]
"""Posts an order to the server and returns its answer; raises ChildGone and EngineFailed."""

log = logging.getLogger("peft_daemon.engines")


class SlotStates:
    """The saved states of one server; ``digests`` are those of its adapters, in the server's order."""

    def __init__(self, states: KvStates, slots: Slots, digests: Sequence[str], call: Call) -> None:
        self._states, self._slots, self._digests, self._call = states, slots, tuple(digests), call
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def prepare(self, slot: Slot, tokens: Sequence[int], adapters: Adapters) -> None:
        """Save what ``slot`` is about to lose, and put into it what it lacks. Raises ChildGone."""
        if timer := self._timers.pop(slot.number, None):
            timer.cancel()
        own = slot.shared(tokens, adapters)
        found = self._states.best(tokens, self._weights(adapters))
        better = found if found is not None and found.shared - own >= WORTH_RESTORING else None
        loses = len(slot.tokens) - (0 if better else own)
        if better is not None or (loses >= WORTH_SAVING and self._unsaved(slot) >= WORTH_SAVING):
            await finish(self._exchange(slot, better, adapters))

    def shared(self, tokens: Sequence[int], adapters: Adapters) -> int:
        """How many of ``tokens`` the best saved state holds, where it is worth putting back."""
        found = self._states.best(tokens, self._weights(adapters))
        return found.shared if found is not None and found.shared >= WORTH_RESTORING else 0

    def released(self, slot: Slot) -> None:
        """Save ``slot`` later, if no request takes it until then."""
        loop = asyncio.get_running_loop()
        self._timers[slot.number] = loop.call_later(UNUSED_S, lambda: self._background(self._keep(slot)))

    async def keep_all(self) -> None:
        """Save all slots that no request has; returns when the states are on disk."""
        for slot in self._slots.free:
            await self._keep(slot)
        await self.settled()

    async def settled(self) -> None:
        """Wait until what was saved is on disk."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def close(self) -> None:
        """Save nothing any more."""
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, slot: Slot) -> None:
        async with self._slots.hold(slot) as free:
            if free and self._unsaved(slot) >= WORTH_SAVING:
                try:
                    await finish(self._save(slot))
                except ChildGone:
                    return

    async def _exchange(self, slot: Slot, better: Found | None, adapters: Adapters) -> None:
        if self._unsaved(slot) >= WORTH_SAVING:
            await self._save(slot)
        if better is not None:
            await self._restore(slot, better, adapters)

    async def _save(self, slot: Slot) -> None:
        file = self._states.new_file()
        try:
            answer = await self._call(f"/slots/{slot.number}?action=save", {"filename": file})
            saved, size = int(answer["n_saved"]), int(answer["n_written"])
        except (PeftDaemonError, ChildGone, LookupError, ValueError) as error:
            self._states.drop(file)
            if isinstance(error, ChildGone):
                raise
            log.warning("the KV state of slot %d was not saved: %s", slot.number, error)
            return
        self._background(self._add(file, slot.tokens[:saved], self._weights(slot.adapters), size))

    async def _add(self, file: str, tokens: Sequence[int], weights: Weights, size: int) -> None:
        try:
            about = await asyncio.to_thread(self._states.read, file, tokens, weights)
            if tokens and about.bytes == size:
                self._states.add(file, about)
                return
            log.warning("a KV state was written with %d bytes where there were to be %d", about.bytes, size)
        except OSError as error:
            log.warning("a KV state was not kept: %s", error)
        self._states.drop(file)

    async def _restore(self, slot: Slot, found: Found, adapters: Adapters) -> None:
        if not await asyncio.to_thread(self._states.intact, found):
            log.warning("the KV state %s is damaged or gone", found.name)
            self._states.discard(found.name)
            return
        slot.holds((), adapters)
        try:
            if adapters and slot.applied != adapters:
                await self._apply(slot, found.about.tokens[:1], adapters)
            answer = await self._call(f"/slots/{slot.number}?action=restore", {"filename": self._states.file(found)})
            restored = int(answer["n_restored"])
        except ChildGone:
            self._states.discard(found.name)  # it may be what the server died of
            raise
        except (PeftDaemonError, LookupError, ValueError) as error:
            log.warning("the KV state %s was not taken: %s", found.name, error)
            self._states.discard(found.name)
            return
        slot.holds(found.about.tokens[:restored], adapters)
        self._states.used(found)

    async def _apply(self, slot: Slot, tokens: Sequence[int], adapters: Adapters) -> None:
        """Let the server know ``slot``'s adapters."""
        lora = [{"id": position, "scale": scale} for position, scale in adapters]
        body = {"prompt": list(tokens), "id_slot": slot.number, "n_predict": 0, "stream": False, "lora": lora}
        slot.applied = None
        await self._call("/completion", body)
        slot.applied = adapters

    def _unsaved(self, slot: Slot) -> int:
        return self._states.unsaved(slot.tokens, self._weights(slot.adapters))

    def _weights(self, adapters: Adapters) -> Weights:
        return tuple((self._digests[position], scale) for position, scale in adapters if scale)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("saving a KV state failed", exc_info=error)
