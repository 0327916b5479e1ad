"""How much memory there is for this process: that of the machine, or of the container that it runs in.

A container's limit is that of its control group, or of one above it (cgroups, version 1 or 2). Linux kills a program
that goes beyond it, whatever the machine has left.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

CONTROL_GROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60
"""Version 1 writes a number near this where there is no limit."""


@dataclass(frozen=True)
class Memory:
    """Bytes of memory."""

    total: int
    available: int
    """That programs can still get without swapping."""
    of_container: bool = False
    """Whether a control group has less than the machine."""


def read_memory(groups: Path = CONTROL_GROUPS, own: Path = Path("/proc/self/cgroup")) -> Memory:
    """Return what this process may use; asks the system each time."""
    machine = psutil.virtual_memory()
    found = Memory(int(machine.total), int(machine.available))
    for limit, left in _limits(groups, own):
        if limit < found.total:
            found = Memory(limit, min(left, found.available), of_container=True)
        else:
            found = Memory(found.total, min(left, found.available), found.of_container)
    return found


def proportional_bytes(pids: list[int]) -> int:
    """Return the memory of processes, in which shared pages count once in all; processes that ended have none.

    Where the system does not tell that (all but Linux), resident memory counts, with shared pages once for each.
    """
    return sum(map(_proportional, pids))


def family(pid: int) -> list[int]:
    """Return a process and all that it has started and they have, without those that ended."""
    with contextlib.suppress(psutil.Error):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []


def _proportional(pid: int) -> int:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        if found := re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE):
            return int(found[1]) * 1024
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def _limits(groups: Path, own: Path) -> Iterator[tuple[int, int]]:
    """Yield the limit and what is left of it, for each control group of this process that has a limit."""
    try:
        lines = own.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounts = [groups, groups / "unified"]
            names = ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mounts = [groups / "memory"]
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        for mount in mounts:
            # A container may see its own group as the top of the tree, and its path from outside.
            for folder in {mount / part for part in (path.strip("/"), *map(str, Path(path.strip("/")).parents), ".")}:
                yield from _limit(folder, *names)


def _limit(folder: Path, limit_file: str, used_file: str, reclaimable: str) -> Iterator[tuple[int, int]]:
    with contextlib.suppress(OSError, ValueError):
        limit = int((folder / limit_file).read_text())  # "max" is no number
        if limit >= _UNLIMITED:
            return
        used = int((folder / used_file).read_text())
        # Files that were read are in there too, and go when memory is needed.
        for line in (folder / "memory.stat").read_text().splitlines():
            if line.startswith(f"{reclaimable} "):
                used -= int(line.split()[1])
        yield limit, max(0, limit - max(0, used))
