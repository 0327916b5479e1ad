"""The log of learning in the background: one JSON line for everything that was done, bounded."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from peft_core.errors import UnusablePath
from peft_core.files import append_line, private_folder, write_private
from peft_core.paths import Paths
from peft_daemon.learning.state import learning_folder

MAX_BYTES = 1_000_000
"""At this size the older half is dropped."""


class LearningEvent(StrEnum):
    """What was done."""

    SWITCHED = "switched"
    """Learning was switched on or off for the repository, or paused or resumed for all."""
    STARTED = "started"
    RESUMED = "resumed"
    """A run that was ended before its end goes on from its checkpoint."""
    PAUSED = "paused"
    CONTINUED = "continued"
    """The paused process runs again."""
    ENDED = "ended"
    """The process was ended before the run's end; the run is resumed later."""
    LEARNED = "learned"
    """A run came to its end, and its adapter is in use."""
    REFUSED = "refused"
    """A run came to its end, and its adapter is not in use; or there was nothing to learn."""
    FAILED = "failed"
    ROLLED_BACK = "rolled back"
    REMOVED = "removed"
    """Old versions were removed."""


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log."""

    time: float
    """Seconds since 1970."""
    repository: str
    event: LearningEvent
    text: str
    figures: dict[str, float] = {}


class LearningLog:
    """The log of one installation; the first entry creates its file."""

    def __init__(self, paths: Paths, clock: Callable[[], float] = time.time, max_bytes: int = MAX_BYTES) -> None:
        self._file, self._clock, self._max_bytes = learning_folder(paths) / "log.jsonl", clock, max_bytes

    @property
    def file(self) -> Path:
        """Path of the file."""
        return self._file

    def add(self, repository: str, event: LearningEvent, text: str, figures: Mapping[str, float] | None = None) -> None:
        """Append an entry; raises UnusablePath where that cannot be done."""
        entry = LogEntry(
            time=round(self._clock(), 3), repository=repository, event=event, text=text, figures=dict(figures or {})
        )
        try:
            private_folder(self._file.parent)
            self._keep_small()
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            descriptor = os.open(self._file, flags, 0o600)
            try:
                append_line(descriptor, msgspec.json.encode(entry))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise UnusablePath(error, self._file) from None

    def entries(self, repository: str | None = None) -> list[LogEntry]:
        """Return the entries of a repository (None: of all), oldest first, without unreadable lines.

        Raises UnusablePath where the file cannot be read.
        """
        try:
            lines = self._file.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UnusablePath(error, self._file) from None
        found = []
        for line in lines:
            try:
                entry = msgspec.json.decode(line, type=LogEntry)
            except (ValueError, RecursionError):  # a power cut may leave half a line
                continue
            if repository is None or entry.repository == repository:
                found.append(entry)
        return found

    def _keep_small(self) -> None:
        if not self._file.exists() or self._file.stat().st_size < self._max_bytes:
            return
        newest = self._file.read_bytes()[-self._max_bytes // 2 :].partition(b"\n")[2]
        write_private(self._file, newest)
