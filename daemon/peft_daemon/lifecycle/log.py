"""The background daemon's log: everything it prints, with one predecessor kept, so that it cannot fill a disk."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from peft_core.errors import UnusablePath
from peft_core.files import require_private_folder
from peft_core.paths import Paths

LIMIT_BYTES = 5_000_000
STDERR = 2
TAIL_LINES = 12
TAIL_BYTES = 8_192


def prepare(paths: Paths) -> int:
    """Make room for a new daemon's lines; returns the offset at which they will begin."""
    require_private_folder(paths.log_file.parent)
    try:
        rotate(paths.log_file)
    except OSError as error:
        raise UnusablePath(error, paths.log_file) from None
    return paths.log_file.stat().st_size if paths.log_file.exists() else 0


@contextlib.contextmanager
def appending(paths: Paths) -> Iterator[int]:
    """A descriptor that appends to the log (mode 0600), to be a process's stdout and stderr.

    Raises UnusablePath where it cannot be written.
    """
    try:
        descriptor = os.open(paths.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise UnusablePath(error, paths.log_file) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def rotate(path: Path, limit_bytes: int = LIMIT_BYTES) -> None:
    """Move the content to ``NAME.1`` when it is longer than the limit."""
    if not path.is_file() or path.stat().st_size <= limit_bytes:
        return
    # Copied and cut, not renamed: the daemon goes on writing to the file it has open.
    predecessor = path.with_name(path.name + ".1")
    predecessor.unlink(missing_ok=True)
    predecessor.touch(mode=0o600)
    shutil.copyfile(path, predecessor)
    os.truncate(path, 0)


def rotate_own_output(paths: Paths) -> None:
    """Rotate the log if this process writes to it (and not to a terminal)."""
    if paths.log_file.exists() and os.path.samestat(os.fstat(STDERR), paths.log_file.stat()):
        rotate(paths.log_file)


def tail(path: Path, offset: int = 0, lines: int = TAIL_LINES) -> str:
    """The last non-empty lines written after ``offset`` bytes, without control characters."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        # A log cut by rotation since then is read from its beginning.
        file.seek(max(offset if offset <= size else 0, size - TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    readable = ("".join(c for c in line if c.isprintable() or c == "\t") for line in text.splitlines())
    return "\n".join([line for line in readable if line.strip()][-lines:])
