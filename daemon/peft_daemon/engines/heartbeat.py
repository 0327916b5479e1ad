"""Detection of a child that hangs: it lives, but neither answers nor makes progress.

Only a child that has work and was silent for a while is pinged. Slow is not hung: a step of the model on a busy machine
takes seconds, but the child answers pings meanwhile. So a child counts as hung after many unanswered pings in a row, or
after one if a signal has stopped its process. Time is counted in checks, not by the clock, so that no child is late
after the machine was suspended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class HeartbeatLimits:
    """When a child is pinged, and when it counts as hung."""

    quiet_s: float = 1.5
    """A working child that was silent for this time is pinged."""
    ping_s: float = 2.0
    """Longest wait for the answer to one ping."""
    missed_pings: int = 7
    """Unanswered pings in a row after which it hangs; one is enough if its process is stopped."""
    stalled_s: float = 300.0
    """Longest time that a child may answer pings without any progress."""


DEFAULT_LIMITS = HeartbeatLimits()


class Heartbeat:
    """Watches the signs of life of one child.

    ``ping`` asks the child something cheap and returns with its answer; it may raise any error when it cannot ask.
    ``stopped`` tells whether a signal has stopped the process.
    """

    def __init__(
        self,
        ping: Callable[[], Awaitable[object]],
        stopped: Callable[[], bool],
        limits: HeartbeatLimits | None = None,
    ) -> None:
        self._ping, self._stopped, self._limits = ping, stopped, limits or DEFAULT_LIMITS
        self._working = 0
        self._beats = 0
        self._due = asyncio.Event()
        """Set while a sign of life is due: work has begun, and nothing was heard since."""
        self.missed = 0
        """Unanswered pings in a row."""
        self.verdict = ""
        """Why the child counts as hung; empty while it does not."""

    @contextmanager
    def working(self) -> Iterator[None]:
        """Watch the child during the block, and on until its next sign of life."""
        self._working += 1
        self._due.set()
        try:
            yield
        finally:
            self._working -= 1

    def beat(self) -> None:
        """Note progress of the child."""
        self._beats += 1

    async def wait_until_hung(self) -> str:
        """Wait until the child hangs; return why it counts as hung."""
        limits, silent_s = self._limits, 0.0
        while not self.verdict:
            await self._due.wait()
            beats = self._beats
            await asyncio.sleep(limits.quiet_s)
            silent_s = silent_s + limits.quiet_s if self._beats == beats else 0.0
            if not silent_s or await self._answers():
                self.missed = 0
                if not self._working:
                    silent_s = 0.0
                    self._due.clear()
                elif silent_s > limits.stalled_s:
                    self.verdict = f"it answers, but has done nothing for {limits.stalled_s:.0f} s"
                continue
            self.missed, silent_s = self.missed + 1, silent_s + limits.ping_s
            if self._stopped():
                self.verdict = "a signal stopped its process"
            elif self.missed >= limits.missed_pings:
                self.verdict = f"it has answered nothing for {self.missed * (limits.quiet_s + limits.ping_s):.0f} s"
        return self.verdict

    async def _answers(self) -> bool:
        """Whether the child answers a ping; True also when it cannot be asked, as its end is noticed elsewhere."""
        try:
            async with asyncio.timeout(self._limits.ping_s):
                await self._ping()
        except TimeoutError:
            return False
        except Exception:
            return True
        return True
