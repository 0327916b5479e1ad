"""Notice that a child hangs: it lives, and neither answers nor gets on with its work.

Nothing is asked of a child that has nothing to do, or of which something was heard a moment ago: only a silent one is
pinged. Slow is not hung. A step of the model on a busy machine takes seconds, and the child answers pings meanwhile, so
what counts is that nothing at all is answered many times in a row. A process that a signal has stopped is no matter of
patience. Time is counted in looks, not by the clock: a machine that was suspended makes no child late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class HeartbeatLimits:
    """When a child is asked, and when it is given up."""

    quiet_s: float = 1.5
    """A child at work of which nothing was heard for so long is pinged."""
    ping_s: float = 2.0
    """So long an answer to one ping is waited for."""
    missed_pings: int = 7
    """So many unanswered pings in a row make it hung; one, if its process is stopped."""
    stalled_s: float = 300.0
    """A child that answers pings may work for so long without any result."""


DEFAULT_LIMITS = HeartbeatLimits()


class Heartbeat:
    """The signs of life of one child.

    ``ping`` returns when the child has answered something cheap, and raises whatever it likes where it cannot be
    asked; ``stopped`` says whether its process is stopped.
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
        self._owed = asyncio.Event()
        """Set while a sign of life is due: work has begun and nothing was heard of it yet."""
        self.missed = 0
        """Pings in a row that were not answered."""
        self.verdict = ""
        """Why the child was found to hang."""

    @contextmanager
    def working(self) -> Iterator[None]:
        """Have the child watched for the block, and until it has shown a sign of life since it began."""
        self._working += 1
        self._owed.set()
        try:
            yield
        finally:
            self._working -= 1

    def beat(self) -> None:
        """Note that the child has got on with its work."""
        self._beats += 1

    async def hangs(self) -> str:
        """Wait until the child hangs; returns why it is thought so."""
        limits, silent_s = self._limits, 0.0
        while not self.verdict:
            await self._owed.wait()
            beats = self._beats
            await asyncio.sleep(limits.quiet_s)
            silent_s = silent_s + limits.quiet_s if self._beats == beats else 0.0
            if not silent_s or await self._answers():
                self.missed = 0
                if not self._working:
                    silent_s = 0.0
                    self._owed.clear()
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
        """Whether the child answers, or cannot be asked: then nothing is known, and its end is seen otherwise."""
        try:
            async with asyncio.timeout(self._limits.ping_s):
                await self._ping()
        except TimeoutError:
            return False
        except Exception:
            return True
        return True
