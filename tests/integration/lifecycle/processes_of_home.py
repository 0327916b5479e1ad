"""The daemons of a home, found by what their starters gave them and not by the files that they are to keep right."""

from __future__ import annotations

from contextlib import suppress

import psutil

from peft_core.paths import Paths
from peft_daemon.lifecycle.background_process import read_handover_paths


def daemons(paths: Paths) -> set[int]:
    """Ids of the living processes that were started as the daemon of this home."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            given = read_handover_paths(process.environ())
            if given == paths and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
    return found
