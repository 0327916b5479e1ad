"""Edits that people made, out of a repository's history: what each commit changed, and the moments within a change.

A commit that changed several places of a file went through states in which some of them were changed and others were
not yet. Such a state is a moment: the changes made so far are the history, and the next one, if it follows from them,
is what a suggestion should say. Which order a person typed in is not known; it is taken to be top to bottom.

Git is read as in ``git``. Merges do not count, and neither do files that were renamed, are generated or are not code.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from peft_core.code.edits import History, LineChange, Lines, line_changes, split_lines, with_change
from peft_core.code.files import SkipReason, decode_path, decode_source, source_language
from peft_core.code.git import open_git, split_fields
from peft_core.code.history import MAX_TEXT_BYTES, read_object

MAX_READ_S = 600.0
"""Longest time for reading a history, with what the caller does between two commits."""
MAX_COMMIT_FILES = 40
"""A commit that changed more was made by a program, or moved things."""
MAX_FILE_CHANGES = 40
MAX_ANSWER_LINES = 6
"""Lines of either side of a change that a suggestion could say; a larger one is something new."""
MAX_HISTORY_LINES = 24
"""Lines of either side of a change that is shown as history; a larger one says too little for its length."""
MIN_WORD = 3
"""Characters of a word that can tie two changes together."""

_RAW = re.compile(rb":(\d+) (\d+) ([0-9a-f]{40,64}) ([0-9a-f]{40,64}) M")
_COMMIT = re.compile(rb"\x01([0-9a-f]{40,64}) (\d+)")
_WORD = re.compile(r"[A-Za-z_]\w*")
_FILE_MODES = frozenset((b"100644", b"100755"))


@dataclass(frozen=True)
class ChangedFile:
    """A file of code that a commit changed: its lines before and after."""

    path: str
    language: str
    before: Lines
    after: Lines


@dataclass(frozen=True)
class EditCommit:
    """What one commit changed in files that stayed where they were."""

    id: str
    at: int
    """When it was committed, in seconds since 1970."""
    files: tuple[ChangedFile, ...]


@dataclass(frozen=True)
class EditStep:
    """A document between two of its changes."""

    lines: Lines
    history: History
    """The changes made so far, without those that are too long to show or of white space alone."""
    words: frozenset[str]
    """Words that these changes took away or brought."""
    following: LineChange | None
    """What was changed next; None at the end."""


def edit_commits(root: Path, newest: str = "HEAD", *, max_seconds: float = MAX_READ_S) -> Iterator[EditCommit]:
    """Yield the commits from ``newest`` on back in time that changed code. Raises Unavailable without git.

    White space alone is no change. Files larger than ``MAX_TEXT_BYTES`` are left out.
    """
    until = time.monotonic() + max_seconds
    with open_git(root, "cat-file", "--batch", max_seconds=max_seconds) as (stdin, stdout):

        def blob(name: bytes) -> Lines | None:
            stdin.write(name + b"\n")
            stdin.flush()
            data = read_object(stdout, MAX_TEXT_BYTES)
            text = None if data is None else decode_source(data)
            return None if text is None or isinstance(text, SkipReason) else split_lines(text)

        for commit, at, changed in _listed(root, newest, until):
            if len(changed) > MAX_COMMIT_FILES or time.monotonic() > until:
                continue
            files = []
            for path, old, new in changed:
                language = source_language(path)
                if isinstance(language, SkipReason):
                    continue
                try:
                    before, after = blob(old), blob(new)
                except OSError:  # git has ended: the time is up, or it cannot read this repository
                    return
                if before is not None and after is not None and not LineChange(0, before, after).is_blank:
                    files.append(ChangedFile(path, language, before, after))
            if files:
                yield EditCommit(commit, at, tuple(files))


def edit_steps(file: ChangedFile, at: int) -> Iterator[EditStep]:
    """Yield the states of a file from its first change on, top to bottom, and at last the one with all of them made.

    Nothing is yielded for a file with more changes than ``MAX_FILE_CHANGES``. ``at`` is when the commit was made.
    """
    changes = line_changes(file.before, file.after)
    if len(changes) > MAX_FILE_CHANGES:
        return
    lines, history, words = file.before, History(), frozenset[str]()
    for change in changes:
        yield EditStep(lines, history, words, change)
        if max(len(change.old), len(change.new)) <= MAX_HISTORY_LINES:
            history = with_change(history, file.path, lines, change, float(at))
            words |= changed_words(change)
        lines = change.apply(lines)
        history = tuple(entry for entry in history if not entry.is_blank)
    yield EditStep(lines, history, words, None)


def follows(step: EditStep) -> bool:
    """Whether a suggestion could say the next change, and a word that it takes away or brings was changed before."""
    change = step.following
    if change is None or not step.history or not step.lines or not is_answer(change):
        return False
    return not step.words.isdisjoint(changed_words(change))


def line_after(step: EditStep) -> int:
    """Return the line where the newest change of a step's history ends; the step needs a history and a line."""
    last = step.history[-1].change
    line = max(last.start, last.new_end - 1) if last.new else max(0, last.start - 1)
    return min(line, len(step.lines) - 1)


def is_answer(change: LineChange) -> bool:
    """Whether a suggestion could say this change."""
    return max(len(change.old), len(change.new)) <= MAX_ANSWER_LINES and not change.is_blank


def words_of(lines: Sequence[str]) -> list[str]:
    """Return the names and other words of lines, in order."""
    return _WORD.findall("\n".join(lines))


def changed_words(change: LineChange) -> frozenset[str]:
    """Return the words that stand in one side of a change more often than in the other."""
    old, new = words_of(change.old), words_of(change.new)
    more = set(old) ^ set(new)
    more.update(word for word in set(old) & set(new) if old.count(word) != new.count(word))
    return frozenset(word for word in more if len(word) >= MIN_WORD)


def _listed(root: Path, newest: str, until: float) -> Iterator[tuple[str, int, list[tuple[str, bytes, bytes]]]]:
    """Yield commits with their time and the files they changed: path, and the names of both contents."""
    listing = ("--raw", "--no-abbrev", "--no-renames", "--diff-filter=M", "--no-show-signature", "--no-ext-diff", "-z")
    command = ("log", "--no-merges", "--no-follow", "--relative", "--format=%x01%H %ct", *listing, newest)
    with open_git(root, *command, max_seconds=max(0.0, until - time.monotonic())) as (_stdin, stdout):
        commit, at, changed = "", 0, list[tuple[str, bytes, bytes]]()
        fields = split_fields(stdout)
        for field in fields:
            entry = field.lstrip(b"\n")
            if head := _COMMIT.fullmatch(entry):
                if changed:
                    yield commit, at, changed
                commit, at, changed = head[1].decode(), int(head[2]), []
            elif raw := _RAW.fullmatch(entry):
                path = decode_path(next(fields, b""))
                if path is not None and {raw[1], raw[2]} <= _FILE_MODES:
                    changed.append((path, raw[3], raw[4]))
        if changed:
            yield commit, at, changed
