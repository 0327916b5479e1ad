"""Processes that a daemon started and that outlived it: recognise them by a mark in their environment, and end them.

Engines end with their daemon by themselves, on Linux because the kernel sees to that. Where something prevents it, a
process of 700 MB stays that no file knows of, so every process that a daemon starts carries the daemon's mark.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from peft_core.paths import Paths
from peft_core.process_identity import ProcessIdentity, kill_tree

if TYPE_CHECKING:
    import psutil

VARIABLE = "PEFT_DAEMON_STARTED_BY"
KILL_WAIT_S = 3.0


class DaemonMark(msgspec.Struct, frozen=True):
    """Which daemon started a process."""

    runtime: str
    """The runtime folder of its home, without links in the path."""
    daemon: ProcessIdentity


def mark_children(paths: Paths) -> None:
    """Have whatever this process starts from now on carry its mark."""
    mark = DaemonMark(_folder(paths), ProcessIdentity.current())
    os.environ[VARIABLE] = msgspec.json.encode(mark).decode()


def end_orphans(paths: Paths) -> int:
    """Kill what dead daemons of this home left running; how many processes these were. Blocks for a moment."""
    import psutil  # noqa: PLC0415  (30 ms, which clients spend elsewhere)

    orphans = find_orphans(paths)
    for each in orphans:
        kill_tree(each)
    psutil.wait_procs(orphans, timeout=KILL_WAIT_S)
    return len(orphans)


def find_orphans(paths: Paths) -> list[psutil.Process]:
    """Processes with the mark of a daemon of this home that lives no more."""
    import psutil  # noqa: PLC0415

    found, folder = [], _folder(paths)
    for process in psutil.process_iter():
        # Those of other users cannot be read, others end meanwhile.
        with contextlib.suppress(psutil.Error, OSError):
            mark = _mark(process.environ())
            ended = mark is not None and mark.runtime == folder and mark.daemon.find() is None
            if ended and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _mark(environ: Mapping[str, str]) -> DaemonMark | None:
    try:
        return msgspec.json.decode(environ.get(VARIABLE, ""), type=DaemonMark)
    except (ValueError, RecursionError):
        return None


def _folder(paths: Paths) -> str:
    return os.path.realpath(paths.runtime)
