"""What a run has done so far: one JSON line per piece of work, written as it is done.

A line counts when it is whole. After ``kill -9`` the last one may be torn; it is cut off, and that piece of work is
done again. One process at a time may append. Knows nothing of what the lines mean.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import msgspec
from filelock import FileLock, Timeout

from peft_core.errors import Conflict

T = TypeVar("T")


class Journal(Generic[T]):
    """Lines of one kind of value in one file. Use it in a ``with`` block to append.

    Entering raises Conflict where another process appends.
    """

    def __init__(self, path: Path, kind: type[T]) -> None:
        self._path = path
        self._decoder = msgspec.json.Decoder(kind)
        self._file: int | None = None
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), mode=0o600)

    def read(self) -> Iterator[T]:
        """All whole lines, in order. Raises Conflict for one that cannot be read."""
        try:
            lines = self._path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return
        for number, line in enumerate(lines, 1):
            try:
                yield self._decoder.decode(line)
            except (ValueError, RecursionError) as error:
                raise Conflict(
                    f"{self._path}, line {number} cannot be read",
                    why=str(error),
                    fix="Remove that line; what it held is done again",
                ) from None

    def __enter__(self) -> Journal[T]:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise Conflict(
                f"another process is at work on the evaluation in {self._path.parent}",
                fix="Wait until it is done, or begin another with `--name`",
            ) from None
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        content = self._path.read_bytes()
        os.ftruncate(self._file, content.rfind(b"\n") + 1)
        os.lseek(self._file, 0, os.SEEK_END)
        return self

    def append(self, value: T) -> None:
        """Write one line; it is with the system when this returns. Raises ValueError outside the block."""
        if self._file is None:
            raise ValueError("the journal is not open")
        line = memoryview(msgspec.json.encode(value) + b"\n")
        while line:
            line = line[os.write(self._file, line) :]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._lock.release()
