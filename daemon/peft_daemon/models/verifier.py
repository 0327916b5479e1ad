"""Is the file that serves still the one that was verified? Asked before each load, and while it serves.

Before a load the system's facts and a sample of the file are compared with what was noted when it was hashed, which
takes some milliseconds; where either differs, the whole file is hashed. While it serves the facts are looked at every
second, and the whole file is hashed when they change, when answers look as if it were damaged, and once a day. A
file that is not right is never loaded: who asks for it gets UnusableFile until another one lies in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from peft_core.errors import PeftDaemonError, UnusableFile
from peft_core.files import FileStamp, sample_sha256
from peft_daemon.models.catalogue import ModelEntry
from peft_daemon.models.optimized import (
    OPTIMIZED_RECORD_FILE,
    OptimizedRecord,
    read_optimized,
    read_optimized_record,
    write_optimized_record,
)
from peft_daemon.models.store import ModelStore, VerificationRecord

LOOK_S = 1.0
"""Pause between two looks at the facts of the file that serves."""
DAY_S = 86_400.0
QUIET_S = 60.0
"""The daily check begins this long after a load at the earliest: whoever started the daemon is waiting for answers."""
SUSPECT_AGAIN_S = 600.0
"""A file that was found right is not hashed again sooner because of what answers look like."""
GIVE_WAY_S = 0.05
CHUNK_BYTES = 1 << 22
LOW_PRIORITY = 15
"""Niceness of the thread that hashes while the file serves."""

log = logging.getLogger("peft_daemon.models")


class ModelVerifier:
    """Checks the file of one model for one daemon.

    ``uses_copy`` says whether its optimized copy serves rather than the original. ``busy`` says whether requests are
    being answered: a daily check waits meanwhile.
    """

    def __init__(
        self, store: ModelStore, entry: ModelEntry, *, uses_copy: bool, busy: Callable[[], bool] = lambda: False
    ) -> None:
        self._store, self._entry, self._uses_copy, self._busy = store, entry, uses_copy, busy
        self._right: dict[Path, tuple[FileStamp, str]] = {}
        """Facts and sample of files that this process hashed."""
        self._wrong: dict[Path, FileStamp] = {}
        self._loaded: Path | None = None
        self._loaded_at = self._hashed_at = 0.0
        self._suspected = ""
        self._wake = asyncio.Event()
        self._closing = threading.Event()
        self._thread = ThreadPoolExecutor(1, "verifier", initializer=_lower_priority)

    def file_to_load(self) -> Path:
        """The file to load now, verified: the optimized copy where it is right, else the original. Blocks.

        Raises UnusableFile when there is none.
        """
        path = self._right_copy()
        if path is None:
            path = self._store.file(self._entry)
            self._require_original()
        self._loaded, self._loaded_at = path, time.monotonic()
        return path

    def suspect(self, why: str) -> None:
        """Have the file that serves hashed soon, because answers look as if it were damaged."""
        self._suspected = why
        self._wake.set()

    async def watch(self, on_damage: Callable[[UnusableFile], Awaitable[None]]) -> None:
        """Look after the file that serves until cancelled; ``on_damage`` is called when it is not right any more."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), LOOK_S)
            self._wake.clear()
            try:
                await self._look(on_damage)
            except Exception:  # it has to be looked after further on
                log.exception("the model's file could not be checked")

    async def _look(self, on_damage: Callable[[UnusableFile], Awaitable[None]]) -> None:
        if (reason := self._reason()) is None or self._loaded is None:
            return
        log.info("checking %s: %s", self._loaded, reason)
        loop = asyncio.get_running_loop()
        error = await loop.run_in_executor(self._thread, self._damage, self._loaded, reason == _DAILY)
        if error is not None and not self._closing.is_set():
            log.error("%s", error)
            await on_damage(error)

    def close(self) -> None:
        """Stop hashing."""
        self._closing.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _reason(self) -> str | None:
        """Why the file that serves is to be hashed now, if it is."""
        suspected, self._suspected = self._suspected, ""
        path, now = self._loaded, time.monotonic()
        try:
            stamp = FileStamp.of(path) if path is not None else None
        except OSError:
            return None  # the engine has it open; whoever loads it next is told
        if path is None or stamp is None or self._wrong.get(path) == stamp:
            return None
        if suspected and (not self._hashed_at or now - self._hashed_at > SUSPECT_AGAIN_S):
            return suspected
        if stamp != self._known(path)[0]:
            return "it was changed or replaced"
        if not self._busy() and now - self._loaded_at > QUIET_S and self._age_s(path) > DAY_S:
            return _DAILY
        return None

    def _damage(self, path: Path, gives_way: bool) -> UnusableFile | None:
        """What is wrong with a file, after hashing all of it."""
        try:
            if path == self._store.file(self._entry):
                self._verify_original(gives_way=gives_way)
            elif not self._copy_is_right(path, gives_way=gives_way):
                self._give_up_copy(path)
                return UnusableFile(f"{path} is damaged", why="its sha256 is not the recorded one", fix=_COPY_FIX)
        except _Closing:
            return None
        except UnusableFile as error:
            return error
        return None

    def _right_copy(self) -> Path | None:
        record = self._copy_record()
        if record is None:
            return None
        path = self._store.file(self._entry).parent / record.file
        with contextlib.suppress(OSError):
            if self._unchanged(path) or self._hash_copy(path, record):
                return path
        self._give_up_copy(path)
        return None

    def _copy_is_right(self, path: Path, *, gives_way: bool) -> bool:
        record = read_optimized_record(path.parent, self._entry.sha256)
        try:
            return record is not None and self._hash_copy(path, record, gives_way=gives_way)
        except OSError:
            return False

    def _require_original(self) -> None:
        path = self._store.file(self._entry)
        with contextlib.suppress(OSError):
            if self._wrong.get(path) == FileStamp.of(path):
                raise self._damaged(path)
            if self._unchanged(path):
                return
        self._verify_original()

    def _verify_original(self, *, gives_way: bool = False) -> None:
        path = self._store.file(self._entry)
        stamp = _stamp(path)
        try:
            self._store.verify(self._entry, sha256=lambda file: self._sha256(file, gives_way=gives_way))
        except _Closing:
            raise
        except PeftDaemonError as error:
            if stamp is not None:
                self._wrong[path] = stamp
            raise UnusableFile(error.what, why=error.why, fix=error.fix) from None
        self._found_right(path)

    def _hash_copy(self, path: Path, record: OptimizedRecord, *, gives_way: bool = False) -> bool:
        stamp = FileStamp.of(path)
        if self._sha256(path, gives_way=gives_way) != record.sha256 or FileStamp.of(path) != stamp:
            return False
        self._found_right(path)
        renewed = msgspec.structs.replace(
            record,
            mtime_ns=stamp.mtime_ns,
            stamp=stamp,
            sample=sample_sha256(path),
            verified=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        with contextlib.suppress(OSError):
            write_optimized_record(path.parent, renewed)
        return True

    def _unchanged(self, path: Path) -> bool:
        """Whether facts and sample are those of the file that was hashed; raises OSError."""
        stamp, sample = self._known(path)
        return stamp == FileStamp.of(path) and bool(sample) and sample_sha256(path) == sample

    def _known(self, path: Path) -> tuple[FileStamp | None, str]:
        if path in self._right:
            return self._right[path]
        record = self._record(path)
        return (record.stamp, record.sample) if record is not None else (None, "")

    def _age_s(self, path: Path) -> float:
        """Seconds since the file was last hashed, by whichever process."""
        if path in self._right:
            return time.monotonic() - self._hashed_at
        if (record := self._record(path)) is None:
            return 0.0
        when = record.verified or (record.created if isinstance(record, OptimizedRecord) else "")
        try:
            return (datetime.now(UTC) - datetime.fromisoformat(when)).total_seconds()
        except (ValueError, TypeError):
            return DAY_S + 1

    def _record(self, path: Path) -> VerificationRecord | OptimizedRecord | None:
        return self._store.record(self._entry) if path == self._store.file(self._entry) else self._copy_record()

    def _copy_record(self) -> OptimizedRecord | None:
        folder = self._store.file(self._entry).parent
        return read_optimized(folder, self._entry.sha256) if self._uses_copy else None

    def _give_up_copy(self, path: Path) -> None:
        log.error("%s is damaged and not used any more; %s", path, _COPY_FIX)
        self._uses_copy = False
        with contextlib.suppress(OSError):
            (path.parent / OPTIMIZED_RECORD_FILE).unlink(missing_ok=True)

    def _found_right(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            self._right[path] = FileStamp.of(path), sample_sha256(path)
        self._hashed_at = time.monotonic()

    def _damaged(self, path: Path) -> UnusableFile:
        return UnusableFile(
            f"{path} is damaged",
            why="its sha256 is not the catalogue's",
            fix=f"Type `peft-daemon models pull {self._entry.id}` to replace it",
        )

    def _sha256(self, path: Path, *, gives_way: bool = False) -> str:
        result, buffer = hashlib.sha256(), bytearray(CHUNK_BYTES)
        view = memoryview(buffer)
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                while gives_way and self._busy() and not self._closing.is_set():
                    self._closing.wait(GIVE_WAY_S)
                if self._closing.is_set():
                    raise _Closing("the daemon is stopping")
                result.update(view[:count])
        return result.hexdigest()


class _Closing(UnusableFile):
    """The daemon leaves, and with it whoever wants to know."""


_DAILY = "it was not for a day"
_COPY_FIX = "Type `peft-daemon models optimize` to make it again; the original serves meanwhile"


def _stamp(path: Path) -> FileStamp | None:
    with contextlib.suppress(OSError):
        return FileStamp.of(path)
    return None


def _lower_priority() -> None:
    if sys.platform == "linux":  # elsewhere a priority is the whole process's
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW_PRIORITY)
