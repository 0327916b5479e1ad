"""Checks that the model file is still the one that was verified, before each load and while it is in use.

Before a load, the file's stamp (size, times, inode) and the hash of a sample are compared with those recorded when the
whole file was hashed, which takes milliseconds. If either differs, the whole file is hashed. While the file is in use,
its stamp is checked every second, and the whole file is hashed when the stamp changes, when answers suggest that the
file is damaged, and once a day. A damaged file is never loaded: loading it raises UnusableFile until it is replaced.
Of a model in transformers' layout the "file" is its folder: see ``content``.
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
from peft_core.tasks import wait_for_event
from peft_daemon.models.catalogue import ModelEntry
from peft_daemon.models.content import ContentStamp, VerificationRecord, content_sample, content_stamp
from peft_daemon.models.optimized import (
    OPTIMIZED_RECORD_FILE,
    OptimizedRecord,
    read_optimized,
    read_optimized_record,
    write_optimized_record,
)
from peft_daemon.models.store import ModelStore

STAMP_CHECK_INTERVAL_S = 1.0
"""How often the stamp of the file in use is checked."""
MAX_HASH_AGE_S = 86_400.0
"""A file in use is hashed again when its last hash is older."""
MIN_LOADED_S = 60.0
"""Shortest time between a load and the daily check: right after a start, answers are more urgent."""
MIN_SUSPICION_INTERVAL_S = 600.0
"""Shortest time between two hashes that are due to suspicious answers."""
BUSY_POLL_S = 0.05
"""How often the daily check looks whether requests are still being answered."""
CHUNK_BYTES = 1 << 22
HASH_NICENESS = 15
"""Niceness of the thread that hashes a file in use."""

log = logging.getLogger("peft_daemon.models")


class ModelVerifier:
    """Checks the file of one model for one daemon.

    ``uses_copy`` says whether to load the optimized copy if there is one. ``busy`` returns whether requests are being
    answered; the daily check pauses meanwhile.
    """

    def __init__(
        self, store: ModelStore, entry: ModelEntry, *, uses_copy: bool, busy: Callable[[], bool] = lambda: False
    ) -> None:
        self._store, self._entry, self._uses_copy, self._busy = store, entry, uses_copy, busy
        self._verified: dict[Path, tuple[ContentStamp, str]] = {}
        """Stamp and sample hash of files that this process hashed."""
        self._known_damaged: dict[Path, tuple[ContentStamp, UnusableFile]] = {}
        """Stamp of files that are not right, and the error that said so."""
        self._loaded: Path | None = None
        self._loaded_at = self._hashed_at = 0.0
        self._suspicion = ""
        self._wake = asyncio.Event()
        self._closing = threading.Event()
        self._thread = ThreadPoolExecutor(1, "verifier", initializer=_lower_priority)

    def file_to_load(self) -> Path:
        """Return the verified file to load: the optimized copy if there is an undamaged one, else the original.

        Blocks while a file is hashed. Raises UnusableFile if there is no undamaged file.
        """
        path = self._undamaged_copy()
        if path is None:
            path = self._store.file(self._entry)
            self._require_original()
        self._loaded, self._loaded_at = path, time.monotonic()
        return path

    def suspect(self, why: str) -> None:
        """Have the file in use hashed soon, because of answers that suggest damage; ``why`` is logged."""
        self._suspicion = why
        self._wake.set()

    async def watch(self, on_damage: Callable[[UnusableFile], Awaitable[None]]) -> None:
        """Check the file in use until cancelled; ``on_damage`` is called when it turns out to be damaged."""
        while True:
            await wait_for_event(self._wake, STAMP_CHECK_INTERVAL_S)
            self._wake.clear()
            try:
                await self._check_loaded(on_damage)
            except Exception:  # one failed check must not end the others
                log.exception("the model's file could not be checked")

    async def _check_loaded(self, on_damage: Callable[[UnusableFile], Awaitable[None]]) -> None:
        if (reason := self._reason_to_hash()) is None or self._loaded is None:
            return
        log.info("checking %s: %s", self._loaded, reason)
        loop = asyncio.get_running_loop()
        error = await loop.run_in_executor(self._thread, self._find_damage, self._loaded, reason == _DAILY)
        if error is not None and not self._closing.is_set():
            log.error("%s", error)
            await on_damage(error)

    def close(self) -> None:
        """Stop hashing."""
        self._closing.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _reason_to_hash(self) -> str | None:
        """Return why the file in use must be hashed now; None if it need not be."""
        suspicion, self._suspicion = self._suspicion, ""
        path, now = self._loaded, time.monotonic()
        try:
            stamp = content_stamp(path) if path is not None else None
        except OSError:
            return None  # the engine still has it open, and the next load reports that it is gone
        if path is None or stamp is None or self._damage(path, stamp) is not None:
            return None
        if suspicion and (not self._hashed_at or now - self._hashed_at > MIN_SUSPICION_INTERVAL_S):
            return suspicion
        if stamp != self._expected(path)[0]:
            return "it was changed or replaced"
        if not self._busy() and now - self._loaded_at > MIN_LOADED_S and self._hash_age_s(path) > MAX_HASH_AGE_S:
            return _DAILY
        return None

    def _find_damage(self, path: Path, pause_when_busy: bool) -> UnusableFile | None:
        """Hash the whole file; returns what is wrong with it, if anything."""
        try:
            if path == self._store.file(self._entry):
                self._verify_original(pause_when_busy=pause_when_busy)
            elif not self._is_copy_undamaged(path, pause_when_busy=pause_when_busy):
                self._give_up_copy(path)
                return UnusableFile(f"{path} is damaged", why="its sha256 is not the recorded one", fix=_COPY_FIX)
        except _Closing:
            return None
        except UnusableFile as error:
            return error
        return None

    def _undamaged_copy(self) -> Path | None:
        record = self._copy_record()
        if record is None:
            return None
        path = self._store.home(self._entry) / record.file
        with contextlib.suppress(OSError):
            if self._unchanged(path) or self._hash_copy(path, record):
                return path
        self._give_up_copy(path)
        return None

    def _is_copy_undamaged(self, path: Path, *, pause_when_busy: bool) -> bool:
        record = read_optimized_record(path.parent, self._entry.sha256)
        try:
            return record is not None and self._hash_copy(path, record, pause_when_busy=pause_when_busy)
        except OSError:
            return False

    def _require_original(self) -> None:
        path = self._store.file(self._entry)
        with contextlib.suppress(OSError):
            if (known := self._damage(path, content_stamp(path))) is not None:
                raise UnusableFile(known.what, why=known.why, fix=known.fix)
            if self._unchanged(path):
                return
        self._verify_original()

    def _verify_original(self, *, pause_when_busy: bool = False) -> None:
        path = self._store.file(self._entry)
        stamp = _stamp(path)
        try:
            self._store.verify(self._entry, sha256=lambda file: self._sha256(file, pause_when_busy=pause_when_busy))
        except _Closing:
            raise
        except PeftDaemonError as error:
            unusable = UnusableFile(error.what, why=error.why, fix=error.fix)
            if stamp is not None:
                self._known_damaged[path] = stamp, unusable
            raise unusable from None
        self._mark_verified(path)

    def _damage(self, path: Path, stamp: ContentStamp) -> UnusableFile | None:
        """Return what was found wrong with the file when it had this stamp."""
        known = self._known_damaged.get(path)
        return known[1] if known is not None and known[0] == stamp else None

    def _hash_copy(self, path: Path, record: OptimizedRecord, *, pause_when_busy: bool = False) -> bool:
        stamp = FileStamp.of(path)
        if self._sha256(path, pause_when_busy=pause_when_busy) != record.sha256 or FileStamp.of(path) != stamp:
            return False
        self._mark_verified(path)
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
        """Whether stamp and sample are those of the file that was hashed; raises OSError."""
        stamp, sample = self._expected(path)
        return stamp == content_stamp(path) and bool(sample) and content_sample(path) == sample

    def _expected(self, path: Path) -> tuple[ContentStamp | None, str]:
        """Return the stamp and sample hash that were recorded when the file was last hashed."""
        if path in self._verified:
            return self._verified[path]
        record = self._record(path)
        return (record.stamp, record.sample) if record is not None else (None, "")

    def _hash_age_s(self, path: Path) -> float:
        """Return the seconds since this or another process last hashed the file."""
        if path in self._verified:
            return time.monotonic() - self._hashed_at
        if (record := self._record(path)) is None:
            return 0.0
        when = record.verified or (record.created if isinstance(record, OptimizedRecord) else "")
        try:
            return abs((datetime.now(UTC) - datetime.fromisoformat(when)).total_seconds())
        except (ValueError, TypeError):
            return MAX_HASH_AGE_S + 1

    def _record(self, path: Path) -> VerificationRecord | OptimizedRecord | None:
        return self._store.record(self._entry) if path == self._store.file(self._entry) else self._copy_record()

    def _copy_record(self) -> OptimizedRecord | None:
        return read_optimized(self._store.home(self._entry), self._entry.sha256) if self._uses_copy else None

    def _give_up_copy(self, path: Path) -> None:
        log.error("%s is damaged and not used any more; %s", path, _COPY_FIX)
        self._uses_copy = False
        with contextlib.suppress(OSError):
            (path.parent / OPTIMIZED_RECORD_FILE).unlink(missing_ok=True)

    def _mark_verified(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            self._verified[path] = content_stamp(path), content_sample(path)
        self._hashed_at = time.monotonic()

    def _sha256(self, path: Path, *, pause_when_busy: bool = False) -> str:
        result, buffer = hashlib.sha256(), bytearray(CHUNK_BYTES)
        view = memoryview(buffer)
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                while pause_when_busy and self._busy() and not self._closing.is_set():
                    self._closing.wait(BUSY_POLL_S)
                if self._closing.is_set():
                    raise _Closing("the daemon is stopping")
                result.update(view[:count])
        return result.hexdigest()


class _Closing(UnusableFile):
    """Ends hashing because the daemon is stopping."""


_DAILY = "its last check is a day old"
_COPY_FIX = "Type `peft-daemon models optimize` to make it again; the original is used meanwhile"


def _stamp(path: Path) -> ContentStamp | None:
    with contextlib.suppress(OSError):
        return content_stamp(path)
    return None


def _lower_priority() -> None:
    if sys.platform == "linux":  # elsewhere a priority belongs to the whole process
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), HASH_NICENESS)
