"""What is known of a repository before it is learned: its top folder, its newest commit, how much code, what is new.

Only git and a few files are read; a daemon does that in a thread.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from peft_core.code import git
from peft_core.code.files import SkipReason, SourceListing, decode_path, list_sources, read_source
from peft_core.code.history import count_added_lines
from peft_core.code.work_trees import main_folder
from peft_core.errors import InvalidInput, PeftDaemonError

ENOUGH_LINES, ENOUGH_COMMITS = 2_000, 20
"""A repository with so much code and history is worth asking about."""
FEW_LINES = 200
"""With fewer lines no run is begun, whoever asks."""
MIN_NEW_LINES = 40
"""So many new lines of code make a repository due again."""
MAX_REMEMBERED = 512
"""Folders whose work trees are remembered."""
NOTHING_NEW = "nothing new since {}"
"""Why a repository is not due whose newest commit was learned."""


@dataclass(frozen=True, kw_only=True)
class RepositorySurvey:
    """What a look at a repository found."""

    root: Path
    head: str
    """The newest commit; empty if there is none."""
    commits: int
    """At most ``ENOUGH_COMMITS``."""
    lines: int
    """Lines of code that people wrote, counted up to ``ENOUGH_LINES``."""
    left_out: str = ""
    """Where there are few lines: why files were left out, the most frequent reason first."""

    @property
    def is_worth_asking(self) -> bool:
        """Whether it has enough code and history."""
        return self.lines >= ENOUGH_LINES and self.commits >= ENOUGH_COMMITS

    @property
    def objection(self) -> str:
        """Why no run could learn anything; empty if one could."""
        if not self.head:
            return "there is no commit yet"
        if self.lines < FEW_LINES:
            why = f" ({self.left_out})" if self.left_out else ""
            return f"{self.lines} lines of code{why}; {FEW_LINES} are needed"
        return ""


@dataclass(frozen=True)
class FoundTree:
    """A work tree of the user's, and the repository that it is of."""

    root: Path
    """The folder that stands for the repository in all its work trees; see ``peft_core.code.work_trees``."""
    tree: Path
    """The top of the work tree."""


def find_tree(folder: str | None) -> FoundTree | None:
    """Return the git work tree that ``folder`` lies in, without links in its paths.

    None if it is no absolute path, in no work tree, or another user's.
    """
    if not folder or "\0" in folder or not Path(folder).is_absolute():
        return None
    try:
        start = Path(folder).resolve(strict=True)
        # The search for `.git` costs no process, and most folders outside of repositories end here.
        if not any((each / ".git").exists() for each in (start, *start.parents)):
            return None
        tree = git.top_level(start if start.is_dir() else start.parent)
        root = main_folder(tree)
        owned = sys.platform == "win32" or {root.stat().st_uid, tree.stat().st_uid} == {os.getuid()}
    except (OSError, RuntimeError, PeftDaemonError):
        return None
    return FoundTree(root, tree) if owned and tree != Path(tree.anchor) else None


class TreeFinder:
    """Finds the work trees of folders and files, and remembers what it found."""

    def __init__(self) -> None:
        self._found: dict[str, FoundTree | None] = {}

    async def find(self, folder: str) -> FoundTree | None:
        """Return what ``find_tree`` returns."""
        if folder not in self._found:
            found = await asyncio.to_thread(find_tree, folder)
            if len(self._found) > MAX_REMEMBERED:
                self._found.clear()
            self._found[folder] = found
        return self._found[folder]


def require_tree(folder: Path) -> FoundTree:
    """Return the work tree as ``find_tree`` does; raises InvalidInput, Unavailable without git."""
    git.require_work_tree(folder)
    found = find_tree(str(folder.absolute()))
    if found is None:
        raise InvalidInput(
            f"{folder} is not a repository of yours",
            why="its top folder belongs to another user",
            fix="Give a repository of your own with --repository PATH",
        )
    return found


def newest_commit(root: Path) -> str:
    """Return the commit that is checked out; empty if there is none. Raises Unavailable without git."""
    return git.head_commit(root)


def survey(root: Path) -> RepositorySurvey:
    """Look at a repository; raises InvalidInput if git refuses it, Unavailable without git."""
    listing = own_sources(root)
    lines = 0
    skipped = dict(listing.skipped)
    for source in listing.files:
        text = read_source(source)
        if isinstance(text, SkipReason):
            skipped[text.value] = skipped.get(text.value, 0) + 1
            continue
        lines += sum(bool(line.strip()) for line in text.split("\n"))
        if lines >= ENOUGH_LINES:
            break
    reasons = sorted(skipped.items(), key=lambda each: -each[1])
    return RepositorySurvey(
        root=root,
        head=git.head_commit(root),
        commits=git.count_commits(root, at_most=ENOUGH_COMMITS),
        lines=min(lines, ENOUGH_LINES),
        left_out=", ".join(f"{count} files {reason}" for reason, count in reasons[:3]) if lines < FEW_LINES else "",
    )


def why_nothing_new(found: RepositorySurvey, since: str) -> str:
    """Return in words why there is too little new code since the commit ``since``; empty if there is enough.

    All code is new if that commit is gone: the history was rewritten, or the clone was made anew. Raises as ``survey``.
    """
    if found.head == since:
        return NOTHING_NEW.format(since[:7])
    if not git.has_commit(found.root, since):
        return ""
    new = count_added_lines(found.root, since, found.head, [each.path for each in own_sources(found.root).files])
    return f"{new} new lines since {since[:7]}; {MIN_NEW_LINES} needed" if new < MIN_NEW_LINES else ""


def own_sources(root: Path) -> SourceListing:
    """List the tracked files that are code by their names, without vendored and generated ones."""
    entries = (each for each in git.tracked_files(root) if not each.link and not each.submodule)
    paths = (path for each in entries if (path := decode_path(each.path)) is not None)
    return list_sources(root, ((path, root / path) for path in paths))
