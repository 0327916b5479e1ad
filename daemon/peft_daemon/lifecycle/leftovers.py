"""Removing what a killed daemon left: its info file, its record and its socket.

Only the holder of the daemon lock may, so that nothing of a living daemon is ever removed.
"""

from __future__ import annotations

from peft_core.errors import Conflict, UnusablePath
from peft_core.files import remove_file
from peft_core.paths import Paths
from peft_daemon.lifecycle.info import info_file
from peft_daemon.lifecycle.locks import daemon_lock, holder_file
from peft_daemon.lifecycle.sockets import remove_stale_sockets


def sweep(paths: Paths, *, timeout_s: float = 0.0) -> bool:
    """Remove a dead daemon's files; does nothing and returns False while a daemon lives.

    ``timeout_s`` is for a killed daemon that has not let go of its files yet.
    """
    try:
        with daemon_lock(paths, timeout_s=timeout_s):
            remove_file(holder_file(paths))
            remove_published(paths)
    except UnusablePath:
        raise
    except Conflict:
        return False
    return True


def remove_published(paths: Paths) -> None:
    """Remove info file and sockets; the caller holds the daemon lock."""
    remove_file(info_file(paths))
    remove_stale_sockets(paths)
