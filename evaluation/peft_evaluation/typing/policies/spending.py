"""CPU seconds of processes and their children, those included that end meanwhile (as of the last look)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import psutil


class Spending:
    """Counts from the first look on. ``roots`` tells the ids of the processes whose trees count."""

    def __init__(self, roots: Callable[[], Iterable[int]]) -> None:
        self._roots = roots
        self._first: dict[tuple[int, float], float] = {}
        self._last: dict[tuple[int, float], float] = {}
        self._begun = False

    def look(self) -> None:
        """Read the clocks of all there are now."""
        for key, seconds in self._now():
            if key not in self._first:
                # One that began after the first look counts as a whole.
                self._first[key] = 0.0 if self._begun else seconds
            self._last[key] = seconds
        self._begun = True

    @property
    def seconds(self) -> float:
        """User and system time between the first look and the last."""
        return round(sum(self._last[key] - self._first[key] for key in self._last), 2)

    def _now(self) -> Iterable[tuple[tuple[int, float], float]]:
        for root in self._roots():
            try:
                process = psutil.Process(root)
                family = [process, *process.children(recursive=True)]
            except psutil.Error:
                continue
            for each in family:
                try:
                    times = each.cpu_times()
                    yield (each.pid, each.create_time()), times.user + times.system
                except psutil.Error:
                    continue
