"""The source files of a folder that somebody works in, committed or not.

In a git work tree all that git tracks or could add, so that ignore rules hold; elsewhere every file below the folder
but hidden folders. Links are not followed. Unlike what is learned from, new files count: they are what is worked on.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from peft_core.code import git
from peft_core.code.files import Listing, Skip, listing_of, usual, walk

MOST_VISITED = 200_000
"""Files looked at outside git, where a folder may be a whole disk."""


def workspace_files(root: Path) -> Listing:
    """The source files below ``root``, a resolved path, in the order of their paths.

    Raises InvalidInput where git refuses a folder that is one of its work trees, Unavailable where git is missing.
    """
    if any((folder / ".git").exists() for folder in (root, *root.parents)):
        return listing_of(root, _in_git(root))
    return listing_of(root, islice(_plain(root), MOST_VISITED))


def _in_git(root: Path) -> Iterator[tuple[str, Path] | Skip]:
    for each in git.visible(root):
        path = usual(each)
        yield Skip.NAME if path is None else (path, root / path)


def _plain(root: Path) -> Iterator[tuple[str, Path] | Skip]:
    for each in walk(root):
        hidden = not isinstance(each, Skip) and any(part.startswith(".") for part in each[0].split("/"))
        yield Skip.IGNORED if hidden else each
