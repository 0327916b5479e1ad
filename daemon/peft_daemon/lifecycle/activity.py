"""Whether the daemon is in use: requests in flight, time since the last one, and the wish to stop.

Used from the event loop's thread only.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator


class Activity:
    """Counts requests, so that an unused daemon can leave; also carries a route's wish to stop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_flight = 0
        self._last = clock()
        self._stop_requested = False

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Around each request that counts as use."""
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self._last = self._clock()

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        return self._in_flight

    @property
    def idle_s(self) -> float:
        """Seconds since the last request ended (or since the start); 0 while one is in flight."""
        return 0.0 if self._in_flight else self._clock() - self._last

    def request_stop(self) -> None:
        """Ask the server to stop gracefully; returns at once, so that the asking request is still answered."""
        self._stop_requested = True

    def over(self, idle_exit_s: float) -> bool:
        """Whether the daemon should leave: it was asked to, or idle for ``idle_exit_s`` seconds (0: never idle)."""
        return self._stop_requested or (idle_exit_s > 0 and self.idle_s >= idle_exit_s)
