"""Which process is meant, even after its number was given to another one, and how to end it.

A pid alone is not an identity: the system reuses it. A pid with the time the process started is.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import psutil

POLL_S = 0.02
SAME_START_S = 0.05
"""Systems report start times in steps of at most 10 ms."""


class ProcessIdentity(msgspec.Struct, frozen=True):
    """One process, once: ``created`` is what ``_created`` said about ``pid`` (seconds)."""

    pid: int
    created: float

    @classmethod
    def current(cls) -> ProcessIdentity:
        """The calling process."""
        import psutil  # noqa: PLC0415  (30 ms, and clients need it only here)

        return cls.of(psutil.Process())

    @classmethod
    def of(cls, process: psutil.Process) -> ProcessIdentity:
        """A process that is known to live; raises psutil.NoSuchProcess when it does not."""
        return cls(process.pid, _created(process))

    def find(self) -> psutil.Process | None:
        """The process, or None if it has ended (a zombie has) or the number now belongs to another one."""
        import psutil  # noqa: PLC0415

        try:
            process = psutil.Process(self.pid)
            if abs(_created(process) - self.created) > SAME_START_S or process.status() == psutil.STATUS_ZOMBIE:
                return None
        except (psutil.NoSuchProcess, psutil.AccessDenied, ValueError, OverflowError):
            return None
        return process

    async def ends_within(self, timeout_s: float) -> bool:
        """Wait for the end of the process; whether it came in time."""
        deadline = time.monotonic() + timeout_s
        while self.find() is not None:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_S)
        return True


def kill_tree(process: psutil.Process) -> None:
    """Kill a process and everything it started; returns without waiting."""
    import psutil  # noqa: PLC0415

    with contextlib.suppress(psutil.NoSuchProcess):
        children = process.children(recursive=True)
        # The parent first: it would start its engine again.
        process.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def _created(process: psutil.Process) -> float:
    """When a process started: since boot on Linux, since the epoch elsewhere."""
    import psutil  # noqa: PLC0415

    # Linux counts from boot and psutil adds the time of boot, which moves whenever the clock is set (WSL after a
    # sleep): a living daemon would look like another process.
    return process.create_time() - psutil.boot_time() if sys.platform == "linux" else process.create_time()
