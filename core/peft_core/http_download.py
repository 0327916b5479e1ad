"""A model file that is not complete yet: always a prefix of the final bytes, with its sha256 kept while it grows.

Because every source appends the same bytes in the same order, one source can go on where another stopped, and a
killed process loses nothing but what it was just receiving.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

CHUNK = 1 << 20
"""Bytes read or written at a time."""


class PartialFile:
    """An append-only file at ``path`` (created when missing); a context manager that closes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        # Unbuffered: after a kill the file holds all that was received, and the write itself reports a full disk.
        self._file = path.open("r+b", buffering=0)
        self._hash: hashlib._Hash | None = None

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def size(self) -> int:
        """Bytes held so far."""
        return os.fstat(self._file.fileno()).st_size

    def append(self, data: bytes) -> None:
        """Add the next bytes; raises OSError when the disk takes no more."""
        running = self._running_hash()
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except BaseException:
            self._hash = None  # an unknown share of ``data`` was written
            raise
        running.update(data)

    def cut(self, size: int) -> None:
        """Forget everything after the first ``size`` bytes."""
        if size != self.size:
            self._file.truncate(size)
            self._hash = None

    def sha256(self) -> str:
        """Hex sha256 of all bytes held."""
        return self._running_hash().hexdigest()

    def sha256_between(self, start: int, end: int) -> str:
        """Hex sha256 of the bytes from ``start`` up to ``end``, both at most ``size``."""
        self._hash = None
        self._file.seek(start)
        return _digest(self._file, end - start).hexdigest()

    def sync(self) -> None:
        """Ask the system to write everything to the disk now."""
        os.fsync(self._file.fileno())

    def _running_hash(self) -> hashlib._Hash:
        if self._hash is None:
            self._file.seek(0)
            self._hash = _digest(self._file, self.size)
        return self._hash


def _digest(file: BinaryIO, length: int) -> hashlib._Hash:
    result = hashlib.sha256()
    while length and (data := file.read(min(CHUNK, length))):
        result.update(data)
        length -= len(data)
    return result
