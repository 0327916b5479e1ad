"""All tracked files of a repository in one file, which ``sandbox.inside.unpacking`` reads.

As they are in the work tree. Submodules and files that are not there are left out; so is what git does not track.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from peft_core.code import git
from peft_core.errors import TooLarge
from peft_evaluation.sandbox.inside.unpacking import LINK

MOST = 256 * 2**20
"""Bytes of all files together: each run holds them in memory."""
PAGE = 4096
"""A file takes whole ones."""


@dataclass(frozen=True, kw_only=True)
class Pack:
    """The file that was written."""

    digest: str
    """sha256 of its content."""
    bytes: int
    """What the files take when they are unpacked."""


def pack(repository: Path, target: Path) -> Pack:
    """Write the tracked files below ``repository`` to ``target``, which only the user can read.

    Raises TooLarge for more than ``MOST``, OSError, and what git raises.
    """
    entries: list[tuple[str, int, int]] = []
    contents: list[bytes] = []
    room = 0
    for entry in git.tracked(repository):
        path = os.fsdecode(entry.path)
        found = None if entry.submodule else _read(repository / path)
        if found is None:
            continue
        mode, content = found
        entries.append((path, mode, len(content)))
        contents.append(content)
        room += -(-len(content) // PAGE) * PAGE + PAGE
        if room > MOST:
            raise TooLarge(
                f"{repository} is too large to run its tests in a copy",
                why=f"its tracked files take more than {MOST >> 20} MB",
                fix="Leave --run-tests out, or give a smaller folder with --repo",
            )
    digest = hashlib.sha256()
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        for piece in (json.dumps(entries).encode() + b"\n", *contents):
            file.write(piece)
            digest.update(piece)
    return Pack(digest=digest.hexdigest(), bytes=room)


def _read(file: Path) -> tuple[int, bytes] | None:
    """Mode and content; None for what is no file any more."""
    if file.is_symlink():
        return LINK, os.fsencode(file.readlink())
    if not file.is_file():
        return None
    return (0o755 if os.access(file, os.X_OK) else 0o644), file.read_bytes()
