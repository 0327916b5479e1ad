"""The format of a home: a version of the product never reads or changes files that only a newer one understands.

``data/format.json`` says in which format the files below the home are. Its two fields never change. A home without it
is of format 1, which also covers everything that was written before there was such a file. Files of earlier formats
are read; ``tests/fixtures/homes`` has a home of each.

Whoever changes files so that earlier versions would misread them, or lose something when they write them, raises
``HOME_FORMAT``.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from peft_core import __version__
from peft_core.errors import Conflict
from peft_core.files import write_atomic
from peft_core.paths import Paths

HOME_FORMAT = 2


class HomeFormat(msgspec.Struct, frozen=True):
    """The content of the file."""

    format: int
    version: Annotated[str, Meta(max_length=100)]
    """Of the peft-daemon that raised the format to this."""


def is_newer_home(paths: Paths) -> bool:
    """Whether a newer version has written the home, in a format that this one does not know."""
    return _newer(paths) is not None


def require_known_format(paths: Paths) -> None:
    """Raise Conflict if a newer version has written the home."""
    if (found := _newer(paths)) is not None:
        raise Conflict(
            f"the files in {paths.data} were written by peft-daemon {found.version}, which is newer than this one",
            why=f"their format is {found.format}, peft-daemon {__version__} knows {HOME_FORMAT}; nothing was changed",
            fix="Update this installation, or give it a home of its own with PEFT_DAEMON_HOME",
        )


def record_format(paths: Paths) -> None:
    """Note this version's format in a home that has files and no format that is as new; where it can be written."""
    found = _read(paths)
    if (found is None or found.format < HOME_FORMAT) and paths.data.is_dir():
        with suppress(OSError):
            write_atomic(_format_file(paths), msgspec.json.encode(HomeFormat(HOME_FORMAT, __version__)))


def _newer(paths: Paths) -> HomeFormat | None:
    found = _read(paths)
    return found if found is not None and found.format > HOME_FORMAT else None


def _read(paths: Paths) -> HomeFormat | None:
    with suppress(OSError, ValueError, RecursionError):
        return msgspec.json.decode(_format_file(paths).read_bytes(), type=HomeFormat)
    return None


def _format_file(paths: Paths) -> Path:
    return paths.data / "format.json"
