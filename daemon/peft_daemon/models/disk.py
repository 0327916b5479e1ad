"""Disk facts the store needs: free space, the ways a disk says "full", and sizes as people read them."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

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
