"""The end of standard input: an editor that is gone, killed or not waiting for the answer to ``shutdown``.

What was not told yet about its suggestions is told then. The library ends everything that is under way as soon as it
reads the end, so the end is held back for that long.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO


class DelayedEnd(io.RawIOBase):
    """A stream whose end is read only after ``before`` has returned."""

    def __init__(self, stream: BinaryIO, before: Callable[[], None]) -> None:
        self._stream = stream
        self._before = before

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line; empty at the end."""
        line = self._stream.readline(-1 if size is None else size)
        if not line:
            self._before()
        return line

    def read(self, size: int = -1, /) -> bytes:
        """That many bytes of a message's body."""
        return self._stream.read(size)
