"""Failed starts of the daemon: the error that a daemon leaves for its starter, and the back-off after failures.

An editor asks for a start at every keystroke, and each try takes a second. Failures are kept in a file, because the
next try may come from another process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from peft_core.errors import PeftDaemonError, Unavailable, UnusablePath
from peft_core.files import read_private, remove_file, require_private_folder, write_private
from peft_core.paths import Paths
from peft_core.wire_errors import ErrorBody, error_body, error_from_body

MAX_FREE_FAILURES = 2
"""Failures allowed before back-off starts."""
FIRST_WAIT_S = 5.0
MAX_WAIT_S = 60.0
FAILURE_MEMORY_S = 600.0
"""Older failures are forgotten."""


class FailedStart(msgspec.Struct, frozen=True):
    """One start that failed: when (seconds since the epoch) and what is known about it."""

    at: float
    lines: str
    """The last lines the daemon printed."""
    error: ErrorBody | None = msgspec.field(default=None, name="told")
    """The error that the daemon left; None if it crashed."""


class FailedStarts(msgspec.Struct, frozen=True):
    """The recent failures, oldest first."""

    recent: list[FailedStart] = []

    def wait_s(self, now: float) -> float:
        """Return the seconds until the next try is allowed; 0 if it is allowed now."""
        if len(self.recent) <= MAX_FREE_FAILURES:
            return 0.0
        delay = min(MAX_WAIT_S, FIRST_WAIT_S * 2.0 ** (len(self.recent) - MAX_FREE_FAILURES - 1))
        return max(0.0, self.recent[-1].at + delay - now)

    def at(self, now: float) -> FailedStarts:
        """Return the failures that count at ``now``: neither too old nor in the future (the clock was set back)."""
        return FailedStarts([failure for failure in self.recent if now - FAILURE_MEMORY_S < failure.at <= now])


def read_failed_starts(paths: Paths, now: float) -> FailedStarts:
    """Read the failures that count at ``now``."""
    data = read_private(_failed_starts_file(paths))
    try:
        return msgspec.json.decode(data, type=FailedStarts).at(now) if data else FailedStarts()
    except (ValueError, RecursionError):
        return FailedStarts()


def record_failed_start(paths: Paths, failure: FailedStart) -> None:
    """Remember a failure."""
    require_private_folder(_failed_starts_file(paths).parent)
    failures = FailedStarts([*read_failed_starts(paths, failure.at).recent, failure])
    write_private(_failed_starts_file(paths), msgspec.json.encode(failures))


def reset_backoff(paths: Paths) -> None:
    """Forget all failures, so that the next start is tried at once."""
    remove_file(_failed_starts_file(paths))


def check_backoff(paths: Paths, now: float) -> None:
    """Raise while the next try has to wait.

    The error is the one that the last daemon left, or Unavailable with the last lines it printed.
    """
    failures = read_failed_starts(paths, now)
    if (wait_s := failures.wait_s(now)) == 0:
        return
    last = failures.recent[-1]
    if last.error is not None:
        raise error_from_body(last.error)
    raise Unavailable(
        f"the daemon failed to start {len(failures.recent)} times; the next try is in {wait_s:.0f} s",
        why=f"its last lines:\n{last.lines}",
        fix="`peft-daemon start` tries at once; `peft-daemon serve` shows everything it prints",
    )


def _failed_starts_file(paths: Paths) -> Path:
    return paths.state / "failed-starts.json"


@contextlib.contextmanager
def record_exit_error(paths: Paths) -> Iterator[None]:
    """Write an expected error that ends the block to a file for the starter, and raise it again.

    Expected are PeftDaemonError, and OSError about a path, which becomes UnusablePath.
    """
    try:
        yield
    except (PeftDaemonError, OSError) as failure:
        if isinstance(failure, OSError) and not failure.filename:
            raise
        error = UnusablePath(failure) if isinstance(failure, OSError) else failure
        require_private_folder(paths.runtime)
        write_private(_exit_record_file(paths), msgspec.json.encode(error_body(error)))
        raise error from None


def take_exit_error(paths: Paths) -> ErrorBody | None:
    """Read and remove the error that the last daemon left; None if it left none."""
    data = read_private(_exit_record_file(paths))
    remove_file(_exit_record_file(paths))
    with contextlib.suppress(ValueError, RecursionError):
        return msgspec.json.decode(data, type=ErrorBody) if data else None
    return None


def _exit_record_file(paths: Paths) -> Path:
    return paths.runtime / "last-words.json"
