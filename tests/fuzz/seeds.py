"""Cases as bytes: inputs of faults that a search found, which every run of the tests tries again.

The first byte chooses one of the target's files, by the order of their names; the others are that file's content.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fuzz.targets import Target

FOLDER = Path(__file__).parent / "recorded"


def folder_name(target: Target) -> str:
    """The name of a target as a folder's."""
    return re.sub(r"\W+", "-", target.name)


def seeds(target: Target) -> Iterator[bytes]:
    """Yield the recorded cases of a target."""
    folder = FOLDER / folder_name(target)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        yield path.read_bytes()


def content_of(target: Target, case: bytes) -> tuple[str, bytes]:
    """Return the file that a case is about, by its path in the target's folder, and the file's content."""
    names = sorted(target.changes)
    return (names[case[0] % len(names)], case[1:]) if case else (names[0], b"")


def case_of(target: Target, name: str, content: bytes) -> bytes:
    """Return the case that gives a file this content."""
    return bytes([sorted(target.changes).index(name)]) + content
