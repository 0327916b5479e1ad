"""Two locks: one that the daemon holds while it runs, and one for the process that starts it.

The kernel frees them when their holder dies. Beside the daemon lock is the record of its holder, so that a daemon that
does not serve yet, or no longer, can be found and stopped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from peft_core.errors import Conflict, UnusablePath
from peft_core.files import read_private, require_private_folder, write_private
from peft_core.paths import Paths
from peft_core.process_identity import ProcessIdentity
from peft_daemon.lifecycle.runtime_info import is_own_folder

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK_WAIT_S = 0.5
"""How long a new daemon waits for the lock: removing a dead daemon's files holds it for a moment."""


@contextlib.contextmanager
def daemon_lock(paths: Paths, *, timeout_s: float = 0.0) -> Iterator[None]:
    """Hold the daemon lock of this home; raises Conflict naming the pid of the daemon that holds it."""
    from filelock import Timeout  # noqa: PLC0415  (60 ms, not needed to find a running daemon)

    lock = _make_lock(paths, "daemon.lock")
    try:
        lock.acquire(timeout=timeout_s, poll_interval=0.01)
    except Timeout:
        holder = find_lock_holder(paths)
        raise Conflict(
            "a daemon already runs",
            why=f"its pid is {holder.pid}" if holder else "",
            fix="`peft-daemon stop` ends it",
        ) from None
    except OSError as error:
        raise UnusablePath(error, lock.lock_file) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def hold_daemon_lock(paths: Paths) -> Iterator[None]:
    """Hold the daemon lock as the daemon, with this process as its recorded holder.

    Raises as ``daemon_lock``.
    """
    with daemon_lock(paths, timeout_s=LOCK_WAIT_S):
        own = ProcessIdentity.current()
        write_private(holder_file(paths), msgspec.json.encode(_Holder(own.pid, own.created, str(paths.runtime))))
        try:
            yield
        finally:
            holder_file(paths).unlink(missing_ok=True)


def holder_file(paths: Paths) -> Path:
    """Return the path of the record of the lock's holder."""
    return paths.runtime / "holder.json"


def find_lock_holder(paths: Paths) -> ProcessIdentity | None:
    """Return the living process that holds the daemon lock, whether or not it serves; None if there is none."""
    if (data := read_private(holder_file(paths))) is None:
        return None
    try:
        written = msgspec.json.decode(data, type=_Holder)
    except (ValueError, RecursionError):
        return None
    holder = ProcessIdentity(written.pid, written.created)
    return holder if is_own_folder(written.folder, paths) and holder.find() is not None else None


class _Holder(ProcessIdentity, frozen=True):
    folder: str = ""
    """The runtime folder that it holds the lock of."""


@contextlib.contextmanager
def starter_lock(paths: Paths) -> Iterator[bool]:
    """Try to be the one process that starts the daemon; yields whether that worked."""
    from filelock import Timeout  # noqa: PLC0415

    lock = _make_lock(paths, "starter.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    except OSError as error:
        raise UnusablePath(error, lock.lock_file) from None
    try:
        yield True
    finally:
        lock.release()


def _make_lock(paths: Paths, name: str) -> BaseFileLock:
    from filelock import FileLock  # noqa: PLC0415

    # No fallback to a lock by a file's existence: it would outlive a killed holder.
    return FileLock(
        require_private_folder(paths.runtime) / name, mode=0o600, thread_local=False, fallback_to_soft=False
    )
