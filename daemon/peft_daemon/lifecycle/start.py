"""Find the daemon, and start it if there is none, or one with an older version or other settings.

Several processes may call this at the same time: one of them starts the daemon, and all get the same one. The daemon is
detached and outlives its starter.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from peft_core import processes
from peft_core.errors import Conflict, PeftDaemonError, Unavailable
from peft_core.home_format import require_known_format
from peft_core.paths import Paths
from peft_core.process_identity import ProcessIdentity, kill_tree
from peft_core.settings import Settings
from peft_core.wire_errors import error_from_body
from peft_daemon.lifecycle.background_process import handover_environment, open_log, prepare_log, read_log_tail
from peft_daemon.lifecycle.failed_starts import FailedStart, check_backoff, record_failed_start, take_exit_error
from peft_daemon.lifecycle.installations import other_daemon_error, record_replaced, require_replaceable, serves
from peft_daemon.lifecycle.locks import find_lock_holder, starter_lock
from peft_daemon.lifecycle.runtime_info import DaemonInfo, find_running_daemon, read_info
from peft_daemon.lifecycle.stop import STOP_TIMEOUT_S, end_process, remove_stale_files

DAEMON_COMMAND = processes.python_module("peft_daemon.background")
START_TIMEOUT_S = 30.0
POLL_S = 0.015
EARLY_EXIT_S = 60.0
"""A daemon that was killed or crashed this soon after it was started counts as a failed start."""


async def ensure_running(
    settings: Settings,
    paths: Paths,
    *,
    timeout_s: float = START_TIMEOUT_S,
    command: Sequence[str] = DAEMON_COMMAND,
    replace: bool = True,
) -> DaemonInfo:
    """Return the daemon of this home that runs this or a newer version with ``settings``; start it if necessary.

    One with an older version or other settings is stopped first (``installations`` has the rules); without ``replace``
    other settings are left as they are. ``command`` is the command line of a daemon, which gets settings and folders by
    ``handover_environment``.

    Raises the error that ended the daemon's start (e.g. NotFound: the model is missing), or Unavailable with its last
    lines if it crashed; the last one again without a new try if starts failed too often; and Conflict if a daemon with
    another version or other settings may not be replaced, or a newer version has written the home.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        if (info := _find_serving(settings, paths)) is not None:
            return info
        with starter_lock(paths) as ours:
            if ours:
                return await _start(settings, paths, deadline, tuple(command), replace)
        if time.monotonic() > deadline:
            raise Unavailable(
                "another process did not finish starting the daemon",
                why=f"waited {timeout_s:.0f} s",
                fix="`peft-daemon stop` ends what hangs; then try again",
            )
        await asyncio.sleep(POLL_S)


async def _start(
    settings: Settings, paths: Paths, deadline: float, command: tuple[str, ...], replace: bool
) -> DaemonInfo:
    """Stop or wait for another daemon, then spawn one; the caller holds the starter lock."""
    while True:
        if (info := _find_serving(settings, paths)) is not None:
            return info
        require_known_format(paths)
        if (info := find_running_daemon(paths)) is not None:
            if not serves(info, settings):
                require_replaceable(info, settings, replace=replace)
                record_replaced(paths, info)
            await end_process(info.process, info, STOP_TIMEOUT_S)
        elif (holder := find_lock_holder(paths)) is not None:
            await _wait_briefly_for(holder, deadline)
        else:
            _record_early_exit(paths)
            remove_stale_files(paths)
            check_backoff(paths, time.time())
            if (info := await _spawn(settings, paths, deadline, command)) is not None:
                return info


async def _spawn(settings: Settings, paths: Paths, deadline: float, command: tuple[str, ...]) -> DaemonInfo | None:
    """Start a daemon and wait until it serves; None if another one, started by hand, was faster."""
    offset = prepare_log(paths)
    take_exit_error(paths)
    child = _launch(settings, paths, command)
    # Collect the exit status, or a daemon that ends before its starter stays as a zombie.
    threading.Thread(target=child.wait, name=f"daemon {child.pid}", daemon=True).start()
    while True:
        exit_code = child.poll()
        # Read after the exit code, so that what a daemon published before it ended is seen.
        if (info := find_running_daemon(paths)) is not None:
            if serves(info, settings):
                return info
            raise other_daemon_error(info)
        if exit_code is not None:
            if exit_code == Conflict.exit_code and find_lock_holder(paths) is not None:
                return None
            raise _failed_start_error(
                paths, f"the daemon ended with {_describe_exit(exit_code)} while it started", offset
            )
        if time.monotonic() > deadline:
            _kill_daemon(child)
            raise _failed_start_error(paths, "the daemon did not begin to serve in time and was ended", offset)
        await asyncio.sleep(POLL_S)


def _launch(settings: Settings, paths: Paths, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Spawn the daemon detached from this process, its output going to the log."""
    with open_log(paths) as output:
        try:
            return processes.start(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=paths.log_file.parent,
                environ=handover_environment(settings, paths, os.environ),
                start_new_session=sys.platform != "win32",
                creationflags=_DETACHED,
            )
        except OSError as error:
            raise Unavailable(
                "the daemon cannot be started",
                why=f"{command[0]}: {error.strerror or error}",
                fix="Install peft-daemon again",
            ) from None


def _find_serving(settings: Settings, paths: Paths) -> DaemonInfo | None:
    info = find_running_daemon(paths)
    return info if info is not None and serves(info, settings) and info.is_reachable() else None


async def _wait_briefly_for(holder: ProcessIdentity, deadline: float) -> None:
    """Wait a moment for a daemon that has the lock but does not serve: it is starting or stopping."""
    if time.monotonic() > deadline:
        raise Unavailable(
            f"the daemon (pid {holder.pid}) neither serves nor ends", fix="`peft-daemon stop` ends it; then try again"
        )
    await asyncio.sleep(POLL_S)


def _record_early_exit(paths: Paths) -> None:
    """Count a daemon that crashed or was killed soon after its start as a failed start."""
    now = time.time()
    left = read_info(paths)
    if left is not None and left.process.find() is None and 0 <= now - left.started < EARLY_EXIT_S:
        record_failed_start(paths, FailedStart(now, read_log_tail(paths.log_file)))


def _failed_start_error(paths: Paths, what: str, offset: int) -> PeftDaemonError:
    """Record a failed start; returns the error the daemon left, or one with the last lines it printed."""
    exit_error = take_exit_error(paths)
    lines = read_log_tail(paths.log_file, offset) or "(it printed nothing)"
    record_failed_start(paths, FailedStart(time.time(), lines, exit_error))
    if exit_error is not None:
        return error_from_body(exit_error)
    return Unavailable(
        what,
        why=f"its last lines:\n{lines}",
        fix=f"`peft-daemon serve` shows everything it prints; the log is {paths.log_file}",
    )


def _describe_exit(exit_code: int) -> str:
    return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"


def _kill_daemon(child: subprocess.Popen[bytes]) -> None:
    import psutil  # noqa: PLC0415

    try:
        kill_tree(psutil.Process(child.pid))
    except psutil.NoSuchProcess:
        return


if sys.platform == "win32":
    _DETACHED = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
else:
    _DETACHED = 0
