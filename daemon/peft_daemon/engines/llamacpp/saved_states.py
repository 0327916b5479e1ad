"""Saved KV states: what the slots of a llama.cpp server held, kept on disk and restored for prompts that begin alike.

``SavedStateStore`` is the folder. A state is a pair of files: ``NAME.kv`` as llama.cpp wrote it, and ``NAME.json``
with a description, which is written last and makes the pair valid. llama.cpp trusts a file and may die of a damaged
one, so size and sha256 are checked before. The folder is bounded in bytes; the least recently used states go first.
Several engines may share it: names are random, files appear in one step, and a file that another process has deleted
is forgotten.

``SlotStateSaver`` decides when states are saved and restored. It saves a slot before a prompt overwrites much unsaved
content, when the slot was unused for a moment, and at the end. It restores a state that spares reading much of a
prompt. Neither may break a request: a failure is logged and the prompt is read.

llama.cpp executes a save or restore late when the slot is still busy with a cancelled request, and then applies it to
the slot's content of that time. So each such order is waited for before the slot is given on, even by a request that
is cancelled meanwhile. llama.cpp also does not store which adapters a state was computed with: it compares the next
request's with those of the slot's last one. So a request with the right adapters precedes a restore.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from peft_core.child_process import ChildGone
from peft_core.errors import PeftDaemonError
from peft_core.files import file_sha256, private_folder, write_atomic
from peft_core.tasks import BackgroundTasks, run_shielded
from peft_daemon.engines.llamacpp.slots import Slot, SlotAdapters, Slots, shared_length

AdapterScales = tuple[tuple[str, float], ...]
"""Digest and scale of each adapter that applies; empty for the base alone."""

MIN_SAVED_TOKENS = 64
"""Fewer unsaved tokens are not saved: reading them again takes less than a second."""
UNPAIRED_FILE_MAX_AGE_S = 600.0
"""Age at which a file that is not part of a pair is deleted."""
_DATA_SUFFIX, _RECORD_SUFFIX, _UNFINISHED_SUFFIX = ".kv", ".json", ".part"
MIN_RESTORED_TOKENS = 48
"""A state that spares fewer tokens is not restored. Reading more takes many times as long as loading the state."""
SAVE_UNUSED_AFTER_S = 2.0
"""A slot is saved when no request has used it for this time."""

PostOrder = Callable[[str, object], Awaitable[Any]]
"""Posts a body to a path of the server and returns the decoded answer; raises ChildGone and EngineFailed."""

log = logging.getLogger("peft_daemon.engines")


class StateRecord(msgspec.Struct, frozen=True):
    """The description of a saved state."""

    fingerprint: str
    weights: AdapterScales
    tokens: tuple[int, ...]
    bytes: int
    sha256: str


@dataclass(frozen=True)
class StateMatch:
    """A saved state, and how many tokens at the beginning of a prompt it spares reading."""

    name: str
    record: StateRecord
    shared: int


class SavedStateStore:
    """The saved states of a folder that fit one base model, build and KV layout: those with its ``fingerprint``."""

    def __init__(self, folder: Path, *, fingerprint: str, limit_bytes: int) -> None:
        """Open the folder, make it private, and delete useless files in it.

        Raises Conflict when the folder belongs to another user, OSError when it cannot be used.
        """
        self.folder = private_folder(folder)
        self._fingerprint, self._limit_bytes = fingerprint, limit_bytes
        self._known: dict[str, StateRecord] = {}
        """The least recently used first."""
        self._clean()
        self._refresh()

    @property
    def bytes(self) -> int:
        """Size of all known states."""
        return sum(record.bytes for record in self._known.values())

    def __len__(self) -> int:
        return len(self._known)

    def best(self, tokens: Sequence[int], weights: AdapterScales) -> StateMatch | None:
        """Return the state that shares the longest beginning with ``tokens``; None when none shares a token."""
        wanted, shared, best = tuple(tokens), 0, ""
        for name, record in reversed(self._known.items()):
            if (
                record.weights == weights
                and record.tokens[: shared + 1] == wanted[: shared + 1]
                and shared < len(wanted)
            ):
                shared, best = shared_length(record.tokens, wanted), name
        return StateMatch(best, self._known[best], shared) if best else None

    def unsaved(self, tokens: Sequence[int], weights: AdapterScales) -> int:
        """Return how many of ``tokens`` no state holds."""
        match = self.best(tokens, weights)
        return len(tokens) - (match.shared if match else 0)

    @staticmethod
    def new_file() -> str:
        """Return a name for a state to be written into the folder; pass it to ``add`` or ``drop`` afterwards."""
        return secrets.token_hex(8) + _UNFINISHED_SUFFIX

    def read(self, file: str, tokens: Sequence[int], weights: AdapterScales) -> StateRecord:
        """Return the description of a new file. Reads the whole file; raises OSError."""
        path = self.folder / file
        return StateRecord(self._fingerprint, weights, tuple(tokens), path.stat().st_size, file_sha256(path))

    def add(self, file: str, record: StateRecord) -> None:
        """Keep a new file; delete states that it covers, then the least recently used ones beyond the limit.

        Raises OSError.
        """
        self._refresh()
        if record.bytes > self._limit_bytes:
            self.drop(file)
            return
        for name, old in list(self._known.items()):
            covered = shared_length(old.tokens, record.tokens) > len(old.tokens) - MIN_SAVED_TOKENS
            if old.weights == record.weights and covered:
                self.discard(name)
        while self._known and self.bytes + record.bytes > self._limit_bytes:
            self.discard(next(iter(self._known)))
        name = file.removesuffix(_UNFINISHED_SUFFIX)
        (self.folder / file).replace(self._data_path(name))
        write_atomic(self._record_path(name), msgspec.json.encode(record))
        self._known[name] = record

    def drop(self, file: str) -> None:
        """Delete a new file that is not to be kept."""
        with contextlib.suppress(OSError):
            (self.folder / file).unlink(missing_ok=True)

    def intact(self, match: StateMatch) -> bool:
        """Whether the state's file is unchanged since it was saved. Reads the whole file."""
        path = self._data_path(match.name)
        try:
            return path.stat().st_size == match.record.bytes and file_sha256(path) == match.record.sha256
        except OSError:
            return False

    def file(self, match: StateMatch) -> str:
        """Return the name of the state's file in the folder."""
        return self._data_path(match.name).name

    def used(self, match: StateMatch) -> None:
        """Mark the state as used just now, also for processes that open the folder later."""
        if record := self._known.pop(match.name, None):
            self._known[match.name] = record
            with contextlib.suppress(OSError):
                os.utime(self._record_path(match.name))

    def discard(self, name: str) -> None:
        """Delete a state."""
        self._known.pop(name, None)
        for path in (self._record_path(name), self._data_path(name)):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all states."""
        self._refresh()
        for name in list(self._known):
            self.discard(name)

    def _refresh(self) -> None:
        """Take in the changes of other engines that share the folder."""
        there = {path.name.removesuffix(_RECORD_SUFFIX): path for path in self.folder.glob(f"*{_RECORD_SUFFIX}")}
        for name in self._known.keys() - there.keys():
            del self._known[name]
        for name in sorted(there.keys() - self._known.keys(), key=lambda name: _changed(there[name])):
            if record := self._usable(name):
                self._known[name] = record

    def _clean(self) -> None:
        """Delete unfinished and damaged states, and those of another base, build or layout."""
        for path in self.folder.iterdir():
            name, old = path.stem, _changed(path) < time.time() - UNPAIRED_FILE_MAX_AGE_S
            unpaired = path.suffix == _UNFINISHED_SUFFIX or not self._record_path(name).exists()
            if (path.suffix == _RECORD_SUFFIX and self._usable(name) is None) or (unpaired and old):
                self.discard(name)
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def _usable(self, name: str) -> StateRecord | None:
        try:
            record = msgspec.json.decode(self._record_path(name).read_bytes(), type=StateRecord)
            size = self._data_path(name).stat().st_size
        except (OSError, ValueError, RecursionError):
            return None
        return record if record.fingerprint == self._fingerprint and record.bytes == size else None

    def _data_path(self, name: str) -> Path:
        return self.folder / (name + _DATA_SUFFIX)

    def _record_path(self, name: str) -> Path:
        return self.folder / (name + _RECORD_SUFFIX)

    def __iter__(self) -> Iterator[StateRecord]:
        return iter(self._known.values())


class SlotStateSaver:
    """Saves and restores the slots of one server; ``digests`` are its adapters', in the server's order."""

    def __init__(self, states: SavedStateStore, slots: Slots, digests: Sequence[str], call: PostOrder) -> None:
        self._states, self._slots, self._digests, self._call = states, slots, tuple(digests), call
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._background = BackgroundTasks(log, "saving a KV state failed")

    async def prepare(self, slot: Slot, tokens: Sequence[int], adapters: SlotAdapters) -> None:
        """Save the content that ``slot`` will lose, and restore what helps a prompt. Raises ChildGone."""
        if timer := self._timers.pop(slot.number, None):
            timer.cancel()
        own = slot.shared(tokens, adapters)
        match = self._states.best(tokens, self._weights(adapters))
        better = match if match is not None and match.shared - own >= MIN_RESTORED_TOKENS else None
        loses = len(slot.tokens) - (0 if better else own)
        if better is not None or (loses >= MIN_SAVED_TOKENS and self._unsaved(slot) >= MIN_SAVED_TOKENS):
            await run_shielded(self._exchange(slot, better, adapters))

    def shared(self, tokens: Sequence[int], adapters: SlotAdapters) -> int:
        """Return how many of ``tokens`` the best saved state holds; 0 where restoring it would not pay."""
        match = self._states.best(tokens, self._weights(adapters))
        return match.shared if match is not None and match.shared >= MIN_RESTORED_TOKENS else 0

    def released(self, slot: Slot) -> None:
        """Save ``slot`` after a while, unless a request takes it until then."""
        loop = asyncio.get_running_loop()
        self._timers[slot.number] = loop.call_later(
            SAVE_UNUSED_AFTER_S, lambda: self._background.spawn(self._save_if_free(slot))
        )

    async def save_free_slots(self) -> None:
        """Save all free slots; returns when the states are on disk."""
        for slot in self._slots.free:
            await self._save_if_free(slot)
        await self.wait_until_written()

    async def wait_until_written(self) -> None:
        """Wait until all saved states are on disk."""
        await self._background.wait()

    async def close(self) -> None:
        """Cancel all saving that is planned or under way."""
        for timer in self._timers.values():
            timer.cancel()
        await self._background.end()

    async def _save_if_free(self, slot: Slot) -> None:
        async with self._slots.hold(slot) as free:
            if free and self._unsaved(slot) >= MIN_SAVED_TOKENS:
                try:
                    await run_shielded(self._save(slot))
                except ChildGone:
                    return

    async def _exchange(self, slot: Slot, better: StateMatch | None, adapters: SlotAdapters) -> None:
        if self._unsaved(slot) >= MIN_SAVED_TOKENS:
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
        self._background.spawn(self._add(file, slot.tokens[:saved], self._weights(slot.adapters), size))

    async def _add(self, file: str, tokens: Sequence[int], weights: AdapterScales, size: int) -> None:
        try:
            record = await asyncio.to_thread(self._states.read, file, tokens, weights)
            if tokens and record.bytes == size:
                self._states.add(file, record)
                return
            log.warning("a KV state was written with %d bytes where there were to be %d", record.bytes, size)
        except OSError as error:
            log.warning("a KV state was not kept: %s", error)
        self._states.drop(file)

    async def _restore(self, slot: Slot, match: StateMatch, adapters: SlotAdapters) -> None:
        if not await asyncio.to_thread(self._states.intact, match):
            log.warning("the KV state %s is damaged or gone", match.name)
            self._states.discard(match.name)
            return
        slot.holds((), adapters)
        try:
            if adapters and slot.applied != adapters:
                await self._apply(slot, match.record.tokens[:1], adapters)
            answer = await self._call(f"/slots/{slot.number}?action=restore", {"filename": self._states.file(match)})
            restored = int(answer["n_restored"])
        except ChildGone:
            self._states.discard(match.name)  # it may be what the server died of
            raise
        except (PeftDaemonError, LookupError, ValueError) as error:
            log.warning("the KV state %s was not taken: %s", match.name, error)
            self._states.discard(match.name)
            return
        slot.holds(match.record.tokens[:restored], adapters)
        self._states.used(match)

    async def _apply(self, slot: Slot, tokens: Sequence[int], adapters: SlotAdapters) -> None:
        """Make ``adapters`` those of the slot's last request."""
        lora = [{"id": position, "scale": scale} for position, scale in adapters]
        body = {"prompt": list(tokens), "id_slot": slot.number, "n_predict": 0, "stream": False, "lora": lora}
        slot.applied = None
        await self._call("/completion", body)
        slot.applied = adapters

    def _unsaved(self, slot: Slot) -> int:
        return self._states.unsaved(slot.tokens, self._weights(slot.adapters))

    def _weights(self, adapters: SlotAdapters) -> AdapterScales:
        return tuple((self._digests[position], scale) for position, scale in adapters if scale)


def fingerprint(*parts: object) -> str:
    """Return a hash that changes with any of ``parts``."""
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
