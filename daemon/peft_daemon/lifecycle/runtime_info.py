"""Files in the runtime folder about running processes: the daemon's info file and the notice of a tuning run.

The info file is written after the daemon serves and removed before it stops, so that a client that can read it can
connect. Both name their process by pid and start time, so that a file left behind by a killed process is recognized.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from peft_core.errors import Conflict
from peft_core.files import read_private, require_private_folder, write_private
from peft_core.paths import Paths
from peft_core.process_identity import ProcessIdentity

CONNECT_TIMEOUT_S = 1.0


class DaemonInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the info file.

    Fields are only ever added, so that each version can read any other's file.
    """

    pid: int
    created: float
    """Start time of the process as ``ProcessIdentity`` counts it."""
    address: str
    """``unix:/path/of.sock`` or ``http://127.0.0.1:PORT``."""
    token: str = ""
    """Empty for a unix socket, which its folder's permissions protect."""
    version: str
    protocol: int
    config_digest: str
    started: float
    """Seconds since the epoch."""
    folder: str = ""
    """The runtime folder of its home, which a copy of that home does not change. Empty in earlier versions' files."""
    installation: str = ""
    """The folder of its code (``installations``). Empty in earlier versions' files."""

    @property
    def process(self) -> ProcessIdentity:
        """The process that serves."""
        return ProcessIdentity(self.pid, self.created)

    @property
    def socket_path(self) -> Path | None:
        """The unix socket; None for TCP."""
        return Path(self.address.removeprefix("unix:")) if self.address.startswith("unix:") else None

    def is_reachable(self) -> bool:
        """Whether something listens at the address; a daemon too busy to accept counts as listening."""
        try:
            if (path := self.socket_path) is not None:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                    probe.settimeout(CONNECT_TIMEOUT_S)
                    probe.connect(str(path))
            else:
                url = urlsplit(self.address)
                socket.create_connection((url.hostname or "", url.port or 0), CONNECT_TIMEOUT_S).close()
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        return True


def info_file(paths: Paths) -> Path:
    """Return the path of the info file."""
    return paths.runtime / "daemon.json"


def read_info(paths: Paths) -> DaemonInfo | None:
    """Read the info file; None if there is none that this version can read.

    Raises Conflict when the file cannot be trusted (``read_private``).
    """
    if (data := read_private(info_file(paths))) is None:
        return None
    with contextlib.suppress(ValueError, RecursionError):
        return msgspec.json.decode(data, type=DaemonInfo)
    return None


def find_running_daemon(paths: Paths) -> DaemonInfo | None:
    """Return the info of the daemon that serves now, or None. Raises as ``read_info``."""
    info = read_info(paths)
    if info is None or not is_own_folder(info.folder, paths):
        return None
    return info if info.process.find() is not None else None


def is_own_folder(folder: str, paths: Paths) -> bool:
    """Return whether a file was written for this home and not for one that it is a copy of; an empty text says yes."""
    if folder in ("", str(paths.runtime)):
        return True
    try:
        return paths.runtime.samefile(folder)
    except OSError:
        return False


def publish_info(paths: Paths, info: DaemonInfo) -> None:
    """Write the info file; call it once the daemon accepts connections."""
    require_private_folder(paths.runtime)
    write_private(info_file(paths), msgspec.json.encode(info))


def withdraw_info(paths: Paths, info: DaemonInfo) -> None:
    """Remove the info file if it is still that of ``info``."""
    # A file that cannot be trusted is not the one this daemon wrote.
    with contextlib.suppress(Conflict):
        if read_info(paths) == info:
            info_file(paths).unlink(missing_ok=True)


class TuningNotice(msgspec.Struct, frozen=True):
    """A tuning run under way on this machine; the newest, if there are several."""

    name: str
    process: ProcessIdentity
    started: float
    """Seconds since the epoch."""


@contextlib.contextmanager
def publish_tuning_notice(paths: Paths, name: str) -> Iterator[None]:
    """Publish for the duration of the block that this process tunes ``name``."""
    require_private_folder(paths.runtime)
    notice = TuningNotice(name, ProcessIdentity.current(), time.time())
    write_private(_tuning_notice_file(paths), msgspec.json.encode(notice))
    try:
        yield
    finally:
        if find_running_tuning(paths) == notice:
            _tuning_notice_file(paths).unlink(missing_ok=True)


def find_running_tuning(paths: Paths) -> TuningNotice | None:
    """Return the tuning run that is under way; None when there is none, or its process was killed."""
    if (written := read_private(_tuning_notice_file(paths))) is None:
        return None
    try:
        notice = msgspec.json.decode(written, type=TuningNotice)
    except (ValueError, RecursionError):
        return None
    return notice if notice.process.find() is not None else None


def _tuning_notice_file(paths: Paths) -> Path:
    return paths.runtime / "tuning.json"
