"""Identify a process by its number and the time it started, and end it with its children.

A process id alone is no identity, because the system reuses it.
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

END_POLL_S = 0.02
"""Interval at which the end of a process is checked."""
MAX_START_DIFFERENCE_S = 0.05
"""Two start times this close are the same; systems report them in steps of at most 10 ms."""


class ProcessIdentity(msgspec.Struct, frozen=True):
    """One process: its number, and the time it started in seconds (since boot on Linux, else since the epoch)."""

    pid: int
    created: float

    @classmethod
    def current(cls) -> ProcessIdentity:
        """Return the identity of the calling process."""
        import psutil  # noqa: PLC0415  (30 ms, and clients need it only here)

        return cls.of(psutil.Process())

    @classmethod
    def of(cls, process: psutil.Process) -> ProcessIdentity:
        """Return the identity of a running process; raises psutil.NoSuchProcess when it has ended."""
        return cls(process.pid, _created(process))

    def find(self) -> psutil.Process | None:
        """Return the process; None if it has ended or is a zombie, or if another process has its number now."""
        import psutil  # noqa: PLC0415

        try:
            process = psutil.Process(self.pid)
            if (
                abs(_created(process) - self.created) > MAX_START_DIFFERENCE_S
                or process.status() == psutil.STATUS_ZOMBIE
            ):
                return None
        except (psutil.NoSuchProcess, psutil.AccessDenied, ValueError, OverflowError):
            return None
        return process

    async def ends_within(self, timeout_s: float) -> bool:
        """Wait at most ``timeout_s`` for the end of the process; return whether it ended."""
        deadline = time.monotonic() + timeout_s
        while self.find() is not None:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(END_POLL_S)
        return True


def kill_tree(process: psutil.Process) -> None:
    """Kill a process and everything it started; returns without waiting."""
    import psutil  # noqa: PLC0415

    with contextlib.suppress(psutil.NoSuchProcess):
        children = process.children(recursive=True)
        # The parent first: it would start its children again.
        process.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def kill_children() -> None:
    """Kill everything that this process has started, and what that has started; returns without waiting."""
    import psutil  # noqa: PLC0415

    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()


def _created(process: psutil.Process) -> float:
    """Return the start time in seconds: since boot on Linux, since the epoch elsewhere."""
    import psutil  # noqa: PLC0415

    # Linux counts from boot and psutil adds the time of boot, which moves whenever the clock is set (WSL after a
    # sleep): a living daemon would look like another process.
    return process.create_time() - psutil.boot_time() if sys.platform == "linux" else process.create_time()
