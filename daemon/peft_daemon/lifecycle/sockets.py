"""Where the daemon listens: a private unix socket, or loopback TCP with a token.

Never another interface. Every daemon gets a new socket name, so that a client of the previous daemon cannot reach it by
accident.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peft_core.errors import Conflict, InvalidInput
from peft_core.files import remove_file, require_private_folder
from peft_core.paths import Paths
from peft_core.settings import Settings

MAX_SOCKET_PATH_BYTES = 103
"""macOS has room for 104 bytes with the final zero, Linux for 108."""
SOCKET_PATTERN = "d-*.sock"


@dataclass(frozen=True)
class Listener:
    """A bound socket and what clients need to reach it."""

    socket: socket.socket
    address: str
    token: str
    path: Path | None
    """The unix socket's file."""


@contextlib.contextmanager
def open_listener(settings: Settings, paths: Paths) -> Iterator[Listener]:
    """Bind as the settings say; at the end the socket is closed and its file removed.

    Raises InvalidInput for an address that is not loopback or a kind of socket the system lacks, Conflict for a
    port that is taken.
    """
    listener = _bind_tcp(settings) if _wants_tcp(settings) else _bind_unix(paths)
    try:
        yield listener
    finally:
        listener.socket.close()
        if listener.path is not None:
            listener.path.unlink(missing_ok=True)


def remove_stale_sockets(paths: Paths) -> None:
    """Remove the sockets of dead daemons and their engines; call it only while holding the daemon lock."""
    folder = socket_folder(paths)
    if folder.is_dir():
        for path in folder.glob("*.sock"):
            remove_file(path)


def socket_folder(paths: Paths) -> Path:
    """Return the folder of unix sockets: the runtime folder, or one with a short path if that is too long."""
    if _fits(paths.runtime):
        return paths.runtime
    name = f"peft-daemon-{hashlib.sha256(os.fsencode(paths.runtime)).hexdigest()[:16]}"
    short = Path(tempfile.gettempdir()) / name
    return short if _fits(short) else Path("/tmp") / name  # noqa: S108  (made private and checked before use)


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / SOCKET_PATTERN.replace("*", "0" * 8))) <= MAX_SOCKET_PATH_BYTES


def _wants_tcp(settings: Settings) -> bool:
    has_unix = hasattr(socket, "AF_UNIX") and sys.platform != "win32"
    if settings.listen == "unix" and not has_unix:
        raise InvalidInput("this system has no unix sockets", fix="Set `listen` to `tcp` or `auto`")
    return settings.listen == "tcp" or not has_unix


def _bind_unix(paths: Paths) -> Listener:
    folder = socket_folder(paths)
    if folder.is_symlink():
        raise Conflict(f"{folder} is a symbolic link", fix="Delete it, or set PEFT_DAEMON_HOME to a shorter path")
    path = require_private_folder(folder) / SOCKET_PATTERN.replace("*", secrets.token_hex(4))
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # umask, because the file is visible before chmod could run; nothing else runs in this process yet.
    mask = os.umask(0o077)
    try:
        bound.bind(str(path))
    except OSError as error:
        bound.close()
        raise Conflict(
            f"cannot create the socket {path}", why=error.strerror or str(error), fix="Set `listen` to `tcp`"
        ) from None
    finally:
        os.umask(mask)
    path.chmod(0o600)
    return Listener(bound, f"unix:{path}", "", path)


def _bind_tcp(settings: Settings) -> Listener:
    ip = _parse_loopback(settings.host)
    family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform == "win32":
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        # So that a restarted daemon can bind the same port at once.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((str(ip), settings.port))
    except OSError as error:
        bound.close()
        raise Conflict(
            f"cannot listen on port {settings.port} of {ip}",
            why=error.strerror or str(error),
            fix="Set `port` to 0 for a free one",
        ) from None
    port = bound.getsockname()[1]
    host = f"[{ip}]" if ip.version == 6 else str(ip)
    return Listener(bound, f"http://{host}:{port}", secrets.token_urlsafe(32), None)


def _parse_loopback(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    # Names are not looked up: what they resolve to cannot be trusted.
    with contextlib.suppress(ValueError):
        ip = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        if ip.is_loopback:
            return ip
    raise InvalidInput(
        f"the daemon does not listen on {host!r}",
        why="only addresses of this machine itself are accepted",
        fix="Set `host` to 127.0.0.1 or ::1",
    )
