"""Files that are either old or new, never half: private, written beside their target, synced, renamed over it.

Knows nothing of adapters.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

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


# Disk facts the store needs: free space, the ways a disk says "full", whether a file is still the same.

SAMPLE_BLOCKS, SAMPLE_BLOCK_BYTES = 1024, 4096
SAMPLE_HEAD_BYTES, SAMPLE_TAIL_BYTES = 1 << 20, 1 << 18
"""What a sample reads: 5.5 MB, in 6 ms where the file is in memory; of a file of 491 MB a block each 0.5 MB."""

_FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


def free_bytes(folder: Path) -> int:
    """Bytes this user may still write to the disk on which ``folder`` lies or would be created."""
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    return shutil.disk_usage(existing).free


def is_full(error: OSError) -> bool:
    """Whether a write failed for want of room: a full disk, a quota, or a limit on file sizes."""
    return error.errno in _FULL


def readable(count: int) -> str:
    """A byte count in decimal units, as disks and hubs state theirs: ``491.4 MB``."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut, where the system has a way to ask for that."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class FileStamp(msgspec.Struct, frozen=True):
    """What the system says of a file without reading it; equal stamps: nothing was written through the system.

    The number of its device is no part of it: that of a btrfs or network file system may be another after each start.
    """

    inode: int
    bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """The stamp of ``path`` now; raises OSError."""
        info = path.stat()
        return cls(info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def sample_sha256(path: Path) -> str:
    """Hex sha256 of parts of a file: its head, its tail, and blocks evenly spread between them. Raises OSError."""
    result = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        result.update(file.read(SAMPLE_HEAD_BYTES))
        between = max(0, size - SAMPLE_HEAD_BYTES - SAMPLE_TAIL_BYTES)
        for block in range(SAMPLE_BLOCKS if between else 0):
            file.seek(SAMPLE_HEAD_BYTES + between * block // SAMPLE_BLOCKS)
            result.update(file.read(SAMPLE_BLOCK_BYTES))
        file.seek(max(0, size - SAMPLE_TAIL_BYTES))
        result.update(file.read(SAMPLE_TAIL_BYTES))
    return result.hexdigest()
