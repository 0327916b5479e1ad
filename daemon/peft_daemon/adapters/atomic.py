"""Files that are either old or new, never half: private, written beside their target, synced, renamed over it.

Knows nothing of adapters.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peft_daemon.models.disk import sync_folder

PARTIAL = ".partial-"
"""Begins the names of folders that are being written."""

_WINDOWS_ATTEMPTS = 50
"""Windows refuses to replace a file while somebody reads it; readers here hold it for well under 10 ms."""


def write(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` (mode 0600); a reader or a crash at any moment finds the old or the new file."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _replace(Path(name), path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def publish(staged: Path, final: Path) -> None:
    """Move a finished folder to its final name, which must not exist yet, after all its content is on the disk."""
    for parent, _, files in os.walk(staged):
        for file in files:
            sync_file(Path(parent, file))
        sync_folder(Path(parent))
    staged.rename(final)
    sync_folder(final.parent)


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """A new folder beside ``final`` to fill, which then gets its name; an error leaves neither.

    What a crash left of an earlier attempt is removed first. ``final`` must not exist in the end.
    """
    staged = final.with_name(f"{PARTIAL}{final.name}")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        staged.mkdir(parents=True)
        yield staged
        publish(staged, final)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def discard(folder: Path, trash: Path) -> bool:
    """Delete ``folder``, first moving it into ``trash`` so that nobody sees it half deleted.

    Returns False where the system refuses because a program has a file in it open (Windows); nothing changed then.
    """
    grave = Path(tempfile.mkdtemp(dir=trash))
    try:
        folder.rename(grave / folder.name)
    except FileNotFoundError:
        return True
    except PermissionError:
        return False
    finally:
        shutil.rmtree(grave, ignore_errors=True)
    sync_folder(folder.parent)
    return True


def sync_file(path: Path) -> None:
    """Wait until the file's bytes are on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _replace(source: Path, target: Path) -> None:
    for _ in range(_WINDOWS_ATTEMPTS if sys.platform == "win32" else 0):
        try:
            source.replace(target)
        except PermissionError:
            time.sleep(0.01)
        else:
            return
    source.replace(target)
