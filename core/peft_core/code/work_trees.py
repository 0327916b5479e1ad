"""One identity for all work trees of a git repository: those of ``git worktree add`` share what is kept for the first.

Only git's own small files are read, and no process is started. What says that a folder is a work tree of a repository
is the repository's own list (``.git/worktrees``): a folder cannot make itself one of another repository by what is
written in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MAX_POINTER_BYTES = 8_192
"""Git's files that point to a folder have one path in them."""
MAX_WORK_TREES = 500
"""Most further work trees of a repository that are looked at."""
_POINTER = "gitdir: "


@dataclass(frozen=True)
class WorkTree:
    """A work tree, and the repository that it is of. Paths have no links in them."""

    root: Path
    """The top folder; of a repository without a work tree of its own, its git folder."""
    common: Path
    """The git folder that all work trees of the repository share."""
    main: Path
    """The folder that stands for the repository: the top of its first work tree, else its git folder."""

    @property
    def further(self) -> tuple[Path, ...]:
        """The top folders of the repository's further work trees, as far as they are there."""
        try:
            entries = sorted((self.common / "worktrees").iterdir())[:MAX_WORK_TREES]
        except OSError:
            return ()
        pointers = (_target(each / "gitdir") for each in entries)
        return tuple(each.parent for each in pointers if each is not None and each.exists())


def find_work_tree(folder: Path) -> WorkTree | None:
    """Return the work tree, or the git folder without one, that ``folder`` lies in; None if it lies in none."""
    try:
        folder = folder.resolve()
        for each in (folder, *folder.parents):
            if is_git_folder(each):
                top = each.parent if each.name == ".git" else each
                return WorkTree(top, each, top)
            if (found := _work_tree(each)) is not None:
                return found
    except (OSError, RuntimeError, ValueError):  # a loop of links; a NUL, which no folder's name has
        pass
    return None


def main_folder(folder: Path) -> Path:
    """Return the folder that stands for ``folder`` in all work trees of its repository: that in the first of them."""
    found = find_work_tree(folder)
    if found is None or found.main == found.root:
        return folder
    return found.main / folder.resolve().relative_to(found.root)


def other_folders(folder: Path) -> Iterator[Path]:
    """Yield what ``folder`` is called in the other work trees of its repository, the first of them first."""
    found = find_work_tree(folder)
    if found is None:
        return
    below = folder.resolve().relative_to(found.root)
    for root in (found.main, *found.further):
        if root != found.root:
            yield root / below


def work_tree_list(folder: Path) -> str:
    """Return the folder in which the repository of ``folder`` lists further work trees, there or not; empty if none."""
    found = find_work_tree(folder)
    return str(found.common / "worktrees") if found is not None else ""


def list_time(worktrees: str) -> int:
    """Return when a list of further work trees changed last, in nanoseconds; 0 without one."""
    try:
        return os.stat(worktrees).st_mtime_ns  # noqa: PTH116  (once per request: a third of the time of Path.stat)
    except OSError:
        return 0


def is_git_folder(folder: Path) -> bool:
    """Return whether ``folder`` looks like a repository's own git folder, as git decides it."""
    return all((folder / name).exists() for name in ("HEAD", "objects", "refs"))


def _work_tree(root: Path) -> WorkTree | None:
    """Return the work tree whose top is ``root``; None if it is none, or if no repository says so."""
    pointer = root / ".git"
    if pointer.is_dir():
        return WorkTree(root, pointer, root) if is_git_folder(pointer) else None
    own = _target(pointer, _POINTER)
    if own is None:
        return None
    common = _target(own / "commondir")
    back = _target(own / "gitdir")
    if common is None or back is None or own.parent != common / "worktrees" or back != pointer:
        # A submodule, a git folder that lies elsewhere, or one that no repository knows.
        return WorkTree(root, own, root)
    return WorkTree(root, common, common.parent if common.name == ".git" else common)


def _target(file: Path, marker: str = "") -> Path | None:
    """Return the path in one of git's pointer files, without links; None if there is none."""
    try:
        if not file.is_file():  # a pipe would be waited for without end
            return None
        with file.open("rb") as opened:
            text = os.fsdecode(opened.read(MAX_POINTER_BYTES)).rstrip("\r\n")
    except OSError:
        return None
    if not text.startswith(marker) or "\0" in text or not text.removeprefix(marker):
        return None
    with suppress(OSError, RuntimeError):
        return (file.parent / text.removeprefix(marker)).resolve()
    return None
