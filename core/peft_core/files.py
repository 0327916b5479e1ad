"""Write files and folders so that they are old or new, never half; keep them private; ask the disk about space.

Windows keeps private files private by the rights of the user's profile.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from peft_core.errors import FREE_SPACE, Conflict, InvalidInput, NoSpace, UnusablePath, is_full

PRIVATE_MODE = 0o600
"""Only the owner may read and write the file."""
SHARED_MODE = 0o666
"""Everybody may whom the user's umask lets."""
PARTIAL_PREFIX = ".partial-"
"""Begins the names of files and folders that are being written."""

ABANDONED_AFTER_S = 3600.0
"""Age at which a temporary file is what a killed writer left."""

WINDOWS_REPLACE_ATTEMPTS = 50
WINDOWS_REPLACE_RETRY_S = 0.01
"""Windows refuses to replace a file while a program reads it; readers here need well under 10 ms."""

SAMPLE_BLOCKS, SAMPLE_BLOCK_BYTES = 1024, 4096
SAMPLE_HEAD_BYTES, SAMPLE_TAIL_BYTES = 1 << 20, 1 << 18
"""Sizes of a sample: 5.5 MB, read in 6 ms where the file is in memory; of a file of 491 MB a block each 0.5 MB."""


# Writing a file


def write_atomic(path: Path, data: bytes, mode: int = PRIVATE_MODE) -> None:
    """Replace ``path`` by ``data`` in one step: a reader, or the end of this process, leaves the old or the new file.

    The file has ``mode`` from the moment it exists. A power cut may lose it: see ``write_durable``. Raises OSError.
    """
    _write(path, data, mode, sync=False)


def write_durable(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` as ``write_atomic`` does, and return when a power cut cannot undo it.

    Raises OSError.
    """
    _write(path, data, PRIVATE_MODE, sync=True)
    sync_folder(path.parent)


def write_private(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` as ``write_atomic`` does.

    Raises UnusablePath where it cannot be written, NoSpace on a full disk.
    """
    try:
        write_atomic(path, data)
    except OSError as error:
        if is_full(error):
            raise NoSpace(f"the disk is full: {path} could not be written", fix=FREE_SPACE) from None
        raise UnusablePath(error, path) from None


def _write(path: Path, data: bytes, mode: int, *, sync: bool) -> None:
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        _replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _remove_abandoned(path)


def _remove_abandoned(path: Path) -> None:
    """Remove what killed writers of this file left beside it; the age tells them from writers that are at work."""
    with suppress(OSError), os.scandir(path.parent) as entries:
        now = path.stat().st_mtime  # by the clock of the disk
        for entry in entries:
            if entry.name.startswith(f".{path.name}.") and entry.name.endswith(".tmp"):
                with suppress(OSError):
                    if now - entry.stat(follow_symlinks=False).st_mtime > ABANDONED_AFTER_S:
                        Path(entry).unlink()


@contextmanager
def atomic_file(final: Path) -> Iterator[Path]:
    """Yield the path of a file to write; at the end of the block it gets the name ``final``.

    An error removes it. Remains of an attempt that a crash ended are overwritten.
    """
    staged = final.with_name(f"{PARTIAL_PREFIX}{final.name}")
    try:
        yield staged
        sync_file(staged)
        _replace(staged, final)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise


def _replace(source: Path, target: Path) -> None:
    for _ in range(WINDOWS_REPLACE_ATTEMPTS if sys.platform == "win32" else 0):
        try:
            source.replace(target)
        except PermissionError:
            time.sleep(WINDOWS_REPLACE_RETRY_S)
        else:
            return
    source.replace(target)


def append_line(descriptor: int, line: bytes) -> None:
    """Append ``line`` and a line end to a file that is open for reading and writing, or leave it as it was.

    Half a line at its end, which a killed process left, gets its end first. Raises OSError.
    """
    size = os.lseek(descriptor, 0, os.SEEK_END)
    half = False
    if size:
        os.lseek(descriptor, size - 1, os.SEEK_SET)
        half = os.read(descriptor, 1) != b"\n"
    left = memoryview((b"\n" if half else b"") + line + b"\n")
    try:
        while left:
            left = left[os.write(descriptor, left) :]
    except BaseException:
        os.ftruncate(descriptor, size)
        os.lseek(descriptor, size, os.SEEK_SET)
        raise


def sync_file(path: Path) -> None:
    """Wait until the file's bytes are on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut, where the system has a way to ask for that."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Writing a folder


@contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """Yield a new folder to fill; at the end of the block it gets the name ``final``, which must not exist then.

    An error removes it. Remains of an attempt that a crash ended are removed first.
    """
    import shutil  # noqa: PLC0415  (clients that only read small files do without it)

    staged = final.with_name(f"{PARTIAL_PREFIX}{final.name}")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        staged.mkdir(parents=True)
        yield staged
        publish_folder(staged, final)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def publish_folder(staged: Path, final: Path) -> None:
    """Move a finished folder to its final name, which must not exist yet, after all its content is on the disk."""
    for parent, _, files in os.walk(staged):
        for file in files:
            sync_file(Path(parent, file))
        sync_folder(Path(parent))
    staged.rename(final)
    sync_folder(final.parent)


def discard_folder(folder: Path, trash: Path) -> bool:
    """Delete ``folder``, first moving it into ``trash`` so that nobody sees it half deleted.

    Returns False where the system refuses because a program has a file in it open (Windows); nothing changed then.
    """
    import shutil  # noqa: PLC0415
    import tempfile  # noqa: PLC0415

    grave = Path(tempfile.mkdtemp(dir=trash))
    try:
        folder.rename(grave / folder.name)
    except FileNotFoundError:
        return True
    except PermissionError:
        return False
    finally:
        shutil.rmtree(grave, ignore_errors=True)
    sync_folder(folder.parent)
    return True


# Private files and folders


def private_folder(path: Path) -> Path:
    """Create ``path`` with mode 0700, or take away the rights of others, and return it. Raises OSError.

    Raises Conflict if it belongs to another user: a socket or key there would be in somebody else's hands.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sys.platform != "win32":
        info = path.stat()
        if info.st_uid != os.getuid():
            raise Conflict(
                f"{path} belongs to another user",
                why=f"owner is uid {info.st_uid}, this is uid {os.getuid()}",
                fix="Set PEFT_DAEMON_HOME to a folder of your own",
            )
        if stat.S_IMODE(info.st_mode) & 0o077:
            path.chmod(0o700)
    return path


def require_private_folder(path: Path) -> Path:
    """Create ``path`` as ``private_folder`` does.

    Raises InvalidInput, not OSError, where that cannot be done.
    """
    try:
        return private_folder(path)
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be used as a folder",
            why=error.strerror or str(error),
            fix="Set PEFT_DAEMON_HOME to a folder you can write to",
        ) from None


def read_private(path: Path) -> bytes | None:
    """Return the bytes of ``path``, or None if there is no such file.

    Raises Conflict when it is a link, belongs to another user, or others may read or write it: its content could
    come from somebody else or be known to somebody else. Raises UnusablePath where it cannot be read.
    """
    try:
        # Opened before it is checked, so that the file that is checked is the one that is read.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _untrusted(path, "it is a symbolic link") from None
        raise UnusablePath(error, path) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # a folder cannot be made a file object
        os.close(descriptor)
        raise _untrusted(path, "it is not a plain file")
    with os.fdopen(descriptor, "rb") as file:
        if sys.platform != "win32":
            info = os.fstat(file.fileno())
            if info.st_uid != os.getuid():
                raise _untrusted(path, f"it belongs to uid {info.st_uid}, this is uid {os.getuid()}")
            if info.st_mode & 0o077:
                raise _untrusted(path, f"others may use it (mode {stat.S_IMODE(info.st_mode):04o})")
        return file.read()


def _untrusted(path: Path, why: str) -> Conflict:
    return Conflict(f"{path} cannot be trusted", why=why, fix="Run `peft-daemon stop`, which removes it")


def remove_file(path: Path) -> None:
    """Delete a file, or an empty folder in its place; raises UnusablePath where that cannot be done."""
    try:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UnusablePath(error, path) from None


# Space


def free_bytes(folder: Path) -> int:
    """Return how many bytes this user may still write to the disk on which ``folder`` lies or would be created."""
    import shutil  # noqa: PLC0415

    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    return shutil.disk_usage(existing).free


def format_bytes(count: int) -> str:
    """Format a byte count in decimal units, as disks and hubs state theirs: ``491.4 MB``."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


# Whether a file is still the same


class FileStamp(msgspec.Struct, frozen=True):
    """What the system says of a file without reading it; with equal stamps nothing was written through the system.

    The number of its device is not included: a btrfs or network file system may get another after each start.
    """

    inode: int
    bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """Return the stamp of ``path`` now; raises OSError."""
        info = path.stat()
        return cls(info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def sample_sha256(path: Path) -> str:
    """Return the hex sha256 of a file's head, its tail, and blocks evenly spread between them.

    Raises OSError.
    """
    result = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        result.update(file.read(SAMPLE_HEAD_BYTES))
        between = max(0, size - SAMPLE_HEAD_BYTES - SAMPLE_TAIL_BYTES)
        for block in range(SAMPLE_BLOCKS if between else 0):
            file.seek(SAMPLE_HEAD_BYTES + between * block // SAMPLE_BLOCKS)
            result.update(file.read(SAMPLE_BLOCK_BYTES))
        file.seek(max(0, size - SAMPLE_TAIL_BYTES))
        result.update(file.read(SAMPLE_TAIL_BYTES))
    return result.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of a whole file; raises OSError."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
