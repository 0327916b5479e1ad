"""Ending the daemon: it is asked first, and killed with its engine when it does not leave in time."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import sys
import time
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import msgspec

from peft_core.errors import Conflict, PeftDaemonError
from peft_core.paths import Paths
from peft_core.process_identity import ProcessIdentity, kill_tree
from peft_daemon.lifecycle import handover
from peft_daemon.lifecycle.info import DaemonInfo, running_daemon
from peft_daemon.lifecycle.leftovers import sweep
from peft_daemon.lifecycle.locks import lock_holder
from peft_daemon.lifecycle.orphans import end_orphans

if TYPE_CHECKING:
    import psutil

STOP_TIMEOUT_S = 12.0
"""The daemon gives requests 5 s to finish and its engine 5 s to leave."""
KILL_TIMEOUT_S = 5.0
ASK_TIMEOUT_S = 2.0


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """What ``stop`` did."""

    how: Literal["not running", "graceful", "killed"]
    pid: int | None = None
    seconds: float = 0.0
    orphans: int = 0
    """Processes of earlier daemons that it ended as well."""


async def stop(paths: Paths, timeout_s: float = STOP_TIMEOUT_S) -> Stopped:
    """End the daemon of this home, whether it serves, starts, drains or hangs; removes and ends what a dead one left.

    Waits ``timeout_s`` for a graceful end, then kills. Raises Conflict when a daemon lives but cannot be found or
    ended.
    """
    target = _target(paths)
    if target is None:
        await asyncio.to_thread(_sweep_or_raise, paths)
        stopped = Stopped(how="not running")
    else:
        stopped = await end_process(target, _trusted_info(paths), timeout_s)
        await asyncio.to_thread(sweep, paths, timeout_s=KILL_TIMEOUT_S)
    return msgspec.structs.replace(stopped, orphans=await asyncio.to_thread(end_orphans, paths))


async def end_process(target: ProcessIdentity, info: DaemonInfo | None, timeout_s: float) -> Stopped:
    """End one daemon process: ask, wait ``timeout_s``, kill. Raises Conflict if it survives even that."""
    began = time.monotonic()
    if (process := target.find()) is None:
        return Stopped(how="not running")
    await asyncio.to_thread(_ask, process, info)
    if await target.ends_within(timeout_s):
        return Stopped(how="graceful", pid=target.pid, seconds=time.monotonic() - began)
    kill_tree(process)
    if not await target.ends_within(KILL_TIMEOUT_S):
        raise Conflict(
            f"the daemon (pid {target.pid}) cannot be killed",
            why="the system keeps it, most likely in a stuck disk or device access",
            fix="Restart the machine",
        )
    return Stopped(how="killed", pid=target.pid, seconds=time.monotonic() - began)


def _target(paths: Paths) -> ProcessIdentity | None:
    with contextlib.suppress(Conflict):
        if (holder := lock_holder(paths)) is not None:
            return holder
    info = _trusted_info(paths)
    return info.process if info is not None else _spawned(paths)


def _spawned(paths: Paths) -> ProcessIdentity | None:
    """A daemon of this home that was started a moment ago and holds nothing yet."""
    import psutil  # noqa: PLC0415

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if handover.folders(process.environ()) == paths:
                return ProcessIdentity.of(process)
    return None


def _trusted_info(paths: Paths) -> DaemonInfo | None:
    with contextlib.suppress(Conflict):
        return running_daemon(paths)
    return None


def _sweep_or_raise(paths: Paths) -> None:
    # A killed process is a zombie as soon as its main thread has died; the kernel closes its files, and with them
    # frees the lock, when the last thread has.
    if not paths.runtime.is_dir() or sweep(paths, timeout_s=KILL_TIMEOUT_S):
        return
    raise Conflict(
        "a daemon runs but its files do not say which process it is",
        why=f"{paths.runtime / 'daemon.lock'} is held",
        fix="End the process that has this file open",
    )


def _ask(process: psutil.Process, info: DaemonInfo | None) -> None:
    """Ask for a graceful end without waiting for it."""
    import psutil  # noqa: PLC0415

    with contextlib.suppress(psutil.NoSuchProcess):
        if sys.platform != "win32":
            process.terminate()
        elif info is not None:
            # Windows has no signal a process could act upon: terminate() would kill.
            with contextlib.suppress(OSError, http.client.HTTPException, PeftDaemonError):
                _post_shutdown(info)


def _post_shutdown(info: DaemonInfo) -> None:
    connection = http.client.HTTPConnection(urlsplit(info.address).netloc, timeout=ASK_TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/shutdown", headers={"Authorization": f"Bearer {info.token}"})
        connection.getresponse().read()
