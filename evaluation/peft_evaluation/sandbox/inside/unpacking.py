"""The tracked files of a repository, as ``own_tests.packing`` wrote them, into the working folder.

A line of JSON, ``[[path, mode, bytes], …]``, then the contents one after the other; a link's content is where it leads.
"""

from __future__ import annotations

import json
import os

LINK = 0o120000
"""A mode; others are permissions."""


def unpack(descriptor: int) -> None:
    """Write all files below the working folder, and close ``descriptor``. Raises OSError, ValueError."""
    made = set()
    with os.fdopen(descriptor, "rb") as pack:
        for path, mode, size in json.loads(pack.readline()):
            folder = os.path.dirname(path)  # noqa: PTH120  (pathlib takes as long to import as to unpack)
            if folder and folder not in made:
                os.makedirs(folder, exist_ok=True)  # noqa: PTH103
                made.add(folder)
            content = pack.read(size)
            if mode == LINK:
                os.symlink(content, path)  # noqa: PTH211
                continue
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            with os.fdopen(file, "wb", 0) as out:
                out.write(content)


def put(path: str, text: str) -> None:
    """Write ``text`` instead of what a file holds."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:  # noqa: PTH123
        file.write(text)
