"""A run that learns in the background, given a share of a machine that runs other tests at the same time."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import psutil


def favour(run: psutil.Process) -> None:
    """Undo the lowest priority of a run, as far as this user may; it sets some of it again, so call it repeatedly."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        Path(f"/proc/{run.pid}/autogroup").write_text("0")
    with contextlib.suppress(psutil.Error):
        for thread in run.threads():
            with contextlib.suppress(OSError):
                os.sched_setscheduler(thread.id, os.SCHED_OTHER, os.sched_param(0))
                os.setpriority(os.PRIO_PROCESS, thread.id, 0)
