"""Stop the daemon, and clean up after dead ones: their files, and the processes that outlived them.

A daemon is asked to stop first, and killed with its engine if it does not exit in time. Only the holder of the daemon
lock removes files of a dead daemon, so that nothing of a living daemon is ever removed.

Engines end by themselves when their daemon ends; on Linux the kernel takes care of it. If that fails, an engine with
700 MB would keep running unnoticed. Therefore every process that a daemon starts has the daemon's mark in its
environment, by which the next daemon, ``stop`` and ``doctor`` find it.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import msgspec

from peft_core.errors import Conflict, PeftDaemonError, UnusablePath
from peft_core.files import remove_file
from peft_core.paths import Paths
from peft_core.process_identity import ProcessIdentity, kill_tree
from peft_daemon.lifecycle.background_process import read_handover_paths
from peft_daemon.lifecycle.locks import daemon_lock, find_lock_holder, holder_file
from peft_daemon.lifecycle.runtime_info import DaemonInfo, find_running_daemon, info_file
from peft_daemon.lifecycle.sockets import remove_stale_sockets

if TYPE_CHECKING:
    import psutil

STOP_TIMEOUT_S = 12.0
"""The daemon gives requests 5 s to finish and its engine 5 s to exit."""
KILL_TIMEOUT_S = 5.0
SHUTDOWN_REQUEST_TIMEOUT_S = 2.0
ORPHAN_KILL_TIMEOUT_S = 3.0
MARK_VARIABLE = "PEFT_DAEMON_STARTED_BY"


class StopResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``stop_daemon``."""

    how: Literal["not running", "graceful", "killed"]
    pid: int | None = None
    seconds: float = 0.0
    orphans: int = 0
    """Number of processes of earlier daemons that were ended too."""


async def stop_daemon(paths: Paths, timeout_s: float = STOP_TIMEOUT_S) -> StopResult:
    """End the daemon of this home in any state; also remove files and end processes that a dead one left.

    Waits ``timeout_s`` seconds for a graceful end, then kills. Raises Conflict if a daemon lives but cannot be found
    or ended.
    """
    target = _find_target(paths)
    if target is None:
        await asyncio.to_thread(_remove_stale_files_or_raise, paths)
        stopped = StopResult(how="not running")
    else:
        stopped = await end_process(target, _trusted_info(paths), timeout_s)
        await asyncio.to_thread(remove_stale_files, paths, timeout_s=KILL_TIMEOUT_S)
    return msgspec.structs.replace(stopped, orphans=await asyncio.to_thread(end_orphans, paths))


async def end_process(target: ProcessIdentity, info: DaemonInfo | None, timeout_s: float) -> StopResult:
    """End one daemon process: ask, wait ``timeout_s`` seconds, kill. Raises Conflict if it survives that."""
    began = time.monotonic()
    if (process := target.find()) is None:
        return StopResult(how="not running")
    await asyncio.to_thread(_request_stop, process, info)
    if await target.ends_within(timeout_s):
        return StopResult(how="graceful", pid=target.pid, seconds=time.monotonic() - began)
    kill_tree(process)
    if not await target.ends_within(KILL_TIMEOUT_S):
        raise Conflict(
            f"the daemon (pid {target.pid}) cannot be killed",
            why="the system keeps it, most likely in a stuck disk or device access",
            fix="Restart the machine",
        )
    return StopResult(how="killed", pid=target.pid, seconds=time.monotonic() - began)


def _find_target(paths: Paths) -> ProcessIdentity | None:
    with contextlib.suppress(Conflict):
        if (holder := find_lock_holder(paths)) is not None:
            return holder
    info = _trusted_info(paths)
    return info.process if info is not None else _find_spawned(paths)


def _find_spawned(paths: Paths) -> ProcessIdentity | None:
    """Return a daemon of this home that was started a moment ago and holds no lock yet."""
    import psutil  # noqa: PLC0415

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if read_handover_paths(process.environ()) == paths:
                return ProcessIdentity.of(process)
    return None


def _trusted_info(paths: Paths) -> DaemonInfo | None:
    with contextlib.suppress(Conflict):
        return find_running_daemon(paths)
    return None


def _remove_stale_files_or_raise(paths: Paths) -> None:
    # A killed process is a zombie as soon as its main thread has died, but the kernel closes its files, and so frees
    # the lock, only when the last thread has died.
    if not paths.runtime.is_dir() or remove_stale_files(paths, timeout_s=KILL_TIMEOUT_S):
        return
    raise Conflict(
        "a daemon runs but its files do not say which process it is",
        why=f"{paths.runtime / 'daemon.lock'} is held",
        fix="End the process that has this file open",
    )


def _request_stop(process: psutil.Process, info: DaemonInfo | None) -> None:
    """Ask for a graceful end without waiting for it."""
    import psutil  # noqa: PLC0415

    with contextlib.suppress(psutil.NoSuchProcess):
        if sys.platform != "win32":
            process.terminate()
        elif info is not None:
            # Windows has no signal that a process can handle: terminate() would kill it.
            with contextlib.suppress(OSError, http.client.HTTPException, PeftDaemonError):
                _post_shutdown(info)


def _post_shutdown(info: DaemonInfo) -> None:
    connection = http.client.HTTPConnection(urlsplit(info.address).netloc, timeout=SHUTDOWN_REQUEST_TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/shutdown", headers={"Authorization": f"Bearer {info.token}"})
        connection.getresponse().read()


def remove_stale_files(paths: Paths, *, timeout_s: float = 0.0) -> bool:
    """Remove a dead daemon's files; return False without doing anything while a daemon lives.

    ``timeout_s`` is how long to wait for a killed daemon to release its lock.
    """
    try:
        with daemon_lock(paths, timeout_s=timeout_s):
            remove_file(holder_file(paths))
            remove_published_files(paths)
    except UnusablePath:
        raise
    except Conflict:
        return False
    return True


def remove_published_files(paths: Paths) -> None:
    """Remove info file and sockets; the caller holds the daemon lock."""
    remove_file(info_file(paths))
    remove_stale_sockets(paths)


class DaemonMark(msgspec.Struct, frozen=True):
    """The daemon that started a process."""

    runtime: str
    """The runtime folder of its home, without links in the path."""
    daemon: ProcessIdentity


def mark_children(paths: Paths) -> None:
    """Set this daemon's mark in the environment, which all processes that it starts from now on inherit."""
    mark = DaemonMark(_real_runtime_folder(paths), ProcessIdentity.current())
    os.environ[MARK_VARIABLE] = msgspec.json.encode(mark).decode()


def end_orphans(paths: Paths) -> int:
    """Kill the processes that dead daemons of this home left running; returns their number.

    Blocks for a moment.
    """
    import psutil  # noqa: PLC0415  (30 ms, which clients spend elsewhere)

    orphans = find_orphans(paths)
    for each in orphans:
        kill_tree(each)
    psutil.wait_procs(orphans, timeout=ORPHAN_KILL_TIMEOUT_S)
    return len(orphans)


def find_orphans(paths: Paths) -> list[psutil.Process]:
    """Return the processes with the mark of a daemon of this home that has ended."""
    import psutil  # noqa: PLC0415

    found, folder = [], _real_runtime_folder(paths)
    for process in psutil.process_iter():
        # Processes of other users cannot be read, and others end meanwhile.
        with contextlib.suppress(psutil.Error, OSError):
            mark = _read_mark(process.environ())
            ended = mark is not None and mark.runtime == folder and mark.daemon.find() is None
            if ended and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _read_mark(environ: Mapping[str, str]) -> DaemonMark | None:
    try:
        return msgspec.json.decode(environ.get(MARK_VARIABLE, ""), type=DaemonMark)
    except (ValueError, RecursionError):
        return None


def _real_runtime_folder(paths: Paths) -> str:
    return os.path.realpath(paths.runtime)
