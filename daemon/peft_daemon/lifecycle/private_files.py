"""Small files only their owner may read: written whole or not at all, refused when others could have read them.

Windows keeps them private by the rights of the user's profile.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

from peft_core.errors import Conflict, InvalidInput, UnusablePath
from peft_core.paths import private_folder


def usable_folder(path: Path) -> Path:
    """The folder, made and kept private; raises InvalidInput if there can be none, Conflict as ``private_folder``."""
    try:
        return private_folder(path)
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be used as a folder",
            why=error.strerror or str(error),
            fix="Set PEFT_DAEMON_HOME to a folder you can write to",
        ) from None


def write_private(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` in one step; the file has mode 0600 from the moment it exists.

    Raises UnusablePath where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UnusablePath(error, path) from None


def remove_file(path: Path) -> None:
    """Delete a file, or an empty folder in its place; raises UnusablePath where that cannot be done."""
    try:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UnusablePath(error, path) from None


def read_private(path: Path) -> bytes | None:
    """The bytes of ``path``, or None if there is no such file.

    Raises Conflict when it is a link, belongs to another user, or others may read or write it: what it says could
    come from somebody else, and what it holds could be known to somebody else. Raises UnusablePath where it cannot
    be read.
    """
    try:
        # Opened before it is checked, so that what is checked is what is read.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _refused(path, "it is a symbolic link") from None
        raise UnusablePath(error, path) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # a folder cannot be made a file object
        os.close(descriptor)
        raise _refused(path, "it is not a plain file")
    with os.fdopen(descriptor, "rb") as file:
        if sys.platform != "win32":
            info = os.fstat(file.fileno())
            if info.st_uid != os.getuid():
                raise _refused(path, f"it belongs to uid {info.st_uid}, this is uid {os.getuid()}")
            if info.st_mode & 0o077:
                raise _refused(path, f"others may use it (mode {stat.S_IMODE(info.st_mode):04o})")
        return file.read()


def _refused(path: Path, why: str) -> Conflict:
    return Conflict(f"{path} cannot be trusted", why=why, fix="Run `peft-daemon stop`, which removes it")
