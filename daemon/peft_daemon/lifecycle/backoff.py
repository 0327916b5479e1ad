"""Refusing to start a daemon that keeps failing: an editor asks at every keystroke, and each try costs a second.

Failures are remembered in a file, because the next try may come from another process.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from peft_core.api_types import ErrorBody
from peft_core.errors import Unavailable
from peft_core.files import read_private, remove_file, require_private_folder, write_private
from peft_core.paths import Paths
from peft_daemon.lifecycle.told_errors import error_of

FREE_FAILURES = 2
"""So many failures cost nothing; the next one starts the waiting."""
FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 60.0
MEMORY_S = 600.0
"""Older failures are forgotten."""


class Failure(msgspec.Struct, frozen=True):
    """One start that failed: when (seconds since the epoch) and what is known about it."""

    at: float
    lines: str
    """The last lines the daemon printed."""
    told: ErrorBody | None = None
    """The error it left; None if it crashed."""


class Failures(msgspec.Struct, frozen=True):
    """The recent failures, oldest first."""

    recent: list[Failure] = []

    def wait_s(self, now: float) -> float:
        """Seconds until the next try is allowed; 0 if it is allowed now."""
        if len(self.recent) <= FREE_FAILURES:
            return 0.0
        delay = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (len(self.recent) - FREE_FAILURES - 1))
        return max(0.0, self.recent[-1].at + delay - now)

    def at(self, now: float) -> Failures:
        """Without those too old to count (or from a future the clock was set back from)."""
        return Failures([failure for failure in self.recent if now - MEMORY_S < failure.at <= now])


def load(paths: Paths, now: float) -> Failures:
    """The failures that count at ``now``."""
    data = read_private(_file(paths))
    try:
        return msgspec.json.decode(data, type=Failures).at(now) if data else Failures()
    except (ValueError, RecursionError):
        return Failures()


def record(paths: Paths, failure: Failure) -> None:
    """Remember a failure."""
    require_private_folder(_file(paths).parent)
    failures = Failures([*load(paths, failure.at).recent, failure])
    write_private(_file(paths), msgspec.json.encode(failures))


def reset(paths: Paths) -> None:
    """Forget all failures: the user asked for a start in person, or removed a cause."""
    remove_file(_file(paths))


def check(paths: Paths, now: float) -> None:
    """While the next try has to wait: raise the error the last daemon left, or Unavailable with its last lines."""
    failures = load(paths, now)
    if (wait_s := failures.wait_s(now)) == 0:
        return
    last = failures.recent[-1]
    if last.told is not None:
        raise error_of(last.told)
    raise Unavailable(
        f"the daemon failed to start {len(failures.recent)} times; the next try is in {wait_s:.0f} s",
        why=f"its last lines:\n{last.lines}",
        fix="`peft-daemon start` tries at once; `peft-daemon serve` shows everything it prints",
    )


def _file(paths: Paths) -> Path:
    return paths.state / "failed-starts.json"
