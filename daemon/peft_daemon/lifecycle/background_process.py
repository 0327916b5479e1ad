"""The background daemon's process: the settings that its starter hands over, and the log that it writes.

Settings and folders travel in one environment variable, which only the same user can read. The daemon removes it, so
that its children do not inherit it. The daemon's own command line, environment and files decide nothing, so that both
sides compute the same digest of the settings. The log is cut at ``MAX_LOG_BYTES``, and one predecessor is kept.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import asdict
from pathlib import Path

import msgspec

from peft_core.errors import InvalidInput, UnusablePath
from peft_core.files import require_private_folder
from peft_core.paths import Paths
from peft_core.settings import Settings

HANDOVER_VARIABLE = "PEFT_DAEMON_HANDOVER"
MAX_LOG_BYTES = 5_000_000
MAX_TAIL_LINES = 12
MAX_TAIL_BYTES = 8_192
STDERR_DESCRIPTOR = 2


class _Handover(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    settings: Settings
    paths: dict[str, str]


def handover_environment(settings: Settings, paths: Paths, environ: Mapping[str, str]) -> dict[str, str]:
    """Return ``environ`` with settings and folders added, for the child."""
    folders = {name: str(path) for name, path in asdict(paths).items()}
    return {**environ, HANDOVER_VARIABLE: msgspec.json.encode(_Handover(settings, folders)).decode()}


def take_handover(environ: MutableMapping[str, str]) -> tuple[Settings, Paths] | None:
    """Remove settings and folders from ``environ`` and return them; None if no starter spawned this process.

    Raises InvalidInput when they cannot be read (they come from another version).
    """
    if (text := environ.pop(HANDOVER_VARIABLE, None)) is None:
        return None
    try:
        return _decode_handover(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidInput(
            f"{HANDOVER_VARIABLE} cannot be read",
            why=str(error),
            fix="Unset it; only a starting client sets it, and it must be of the same version",
        ) from None


def read_handover_paths(environ: Mapping[str, str]) -> Paths | None:
    """Return the folders handed to the process with this environment; None if no starter spawned it."""
    try:
        return _decode_handover(environ.get(HANDOVER_VARIABLE, ""))[1]
    except (ValueError, TypeError, RecursionError):
        return None


def _decode_handover(text: str) -> tuple[Settings, Paths]:
    given = msgspec.json.decode(text, type=_Handover)
    return given.settings, Paths(**{name: Path(path) for name, path in given.paths.items()})


def prepare_log(paths: Paths) -> int:
    """Rotate the log for a new daemon; return the offset in bytes at which its lines will begin."""
    require_private_folder(paths.log_file.parent)
    try:
        rotate_log(paths.log_file)
    except OSError as error:
        raise UnusablePath(error, paths.log_file) from None
    return paths.log_file.stat().st_size if paths.log_file.exists() else 0


@contextlib.contextmanager
def open_log(paths: Paths) -> Iterator[int]:
    """Open the log (mode 0600) for appending; yield the descriptor for a process's stdout and stderr.

    Raises UnusablePath where it cannot be written.
    """
    try:
        descriptor = os.open(paths.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise UnusablePath(error, paths.log_file) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def rotate_log(path: Path, limit_bytes: int = MAX_LOG_BYTES) -> None:
    """Move the content to ``NAME.1`` when it is longer than the limit."""
    if not path.is_file() or path.stat().st_size <= limit_bytes:
        return
    # Copied and truncated, not renamed: a running daemon continues to write to the file it has open.
    predecessor = path.with_name(path.name + ".1")
    predecessor.unlink(missing_ok=True)
    predecessor.touch(mode=0o600)
    shutil.copyfile(path, predecessor)
    os.truncate(path, 0)


def rotate_own_output(paths: Paths) -> None:
    """Rotate the log if this process writes to it (and not to a terminal)."""
    if paths.log_file.exists() and os.path.samestat(os.fstat(STDERR_DESCRIPTOR), paths.log_file.stat()):
        rotate_log(paths.log_file)


def read_log_tail(path: Path, offset: int = 0, lines: int = MAX_TAIL_LINES) -> str:
    """Return the last non-empty lines written after ``offset`` bytes, without control characters."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        # A log cut by rotation since then is read from its beginning.
        file.seek(max(offset if offset <= size else 0, size - MAX_TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    readable = ("".join(c for c in line if c.isprintable() or c == "\t") for line in text.splitlines())
    return "\n".join([line for line in readable if line.strip()][-lines:])
