"""Changes of whole lines: between two texts, one upon another, and the history that several of them make.

Lines have no line ends here. A ``LineChange`` says which lines of a document others took the place of. The history of
a user's changes keeps one entry for each place: a keystroke grows the entry that it touches, and what is changed back
disappears.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

MOST_DIFFED_LINES = 20_000
"""Above that, two texts are compared by their common beginning and end only."""

Lines = tuple[str, ...]


@dataclass(frozen=True)
class LineChange:
    """The lines ``old``, which began at ``start`` (from 0), became ``new``."""

    start: int
    old: Lines
    new: Lines

    @property
    def old_end(self) -> int:
        """The line behind the old lines."""
        return self.start + len(self.old)

    @property
    def new_end(self) -> int:
        """The line behind the new lines."""
        return self.start + len(self.new)

    @property
    def growth(self) -> int:
        """By how many lines the document grows."""
        return len(self.new) - len(self.old)

    @property
    def inverse(self) -> LineChange:
        """The change that undoes it."""
        return LineChange(self.start, self.new, self.old)

    @property
    def is_blank(self) -> bool:
        """Whether only white space changes."""
        old, new = ("".join("".join(side).split()) for side in (self.old, self.new))
        return old == new

    def apply(self, lines: Sequence[str]) -> Lines:
        """Return the document with the change; raises ValueError where the old lines do not stand there."""
        if tuple(lines[self.start : self.old_end]) != self.old:
            raise ValueError(f"other lines stand at line {self.start + 1}")
        return (*lines[: self.start], *self.new, *lines[self.old_end :])

    def trimmed(self) -> LineChange:
        """The same change without the lines at its two ends that stay as they are."""
        old, new = self.old, self.new
        shortest = min(len(old), len(new))
        first = next((at for at in range(shortest) if old[at] != new[at]), shortest)
        shortest -= first
        last = next((at for at in range(shortest) if old[-1 - at] != new[-1 - at]), shortest)
        return LineChange(self.start + first, old[first : len(old) - last], new[first : len(new) - last])


def split_lines(text: str) -> Lines:
    """Return the lines of a text that has ``\\n`` as its line ends; the end of its last line makes no further one."""
    lines = text.split("\n")
    return tuple(lines[:-1] if not lines[-1] else lines)


def join_lines(lines: Sequence[str]) -> str:
    """Return lines as a text of whole lines."""
    return "".join(f"{line}\n" for line in lines)


def line_changes(old: Sequence[str], new: Sequence[str]) -> list[LineChange]:
    """Return the changes that lead from ``old`` to ``new``, top to bottom.

    Each ``start`` is a line of the document in which all changes above it are made, and none below.
    """
    whole = LineChange(0, tuple(old), tuple(new)).trimmed()
    if max(len(whole.old), len(whole.new)) > MOST_DIFFED_LINES:
        return [whole]
    matcher = SequenceMatcher(None, whole.old, whole.new, autojunk=False)
    return [
        LineChange(whole.start + new_start, whole.old[old_start:old_end], whole.new[new_start:new_end])
        for tag, old_start, old_end, new_start, new_end in matcher.get_opcodes()
        if tag != "equal"
    ]


@dataclass(frozen=True)
class EditedPlace:
    """What became of one place of a document. ``change.start`` is a line of the document as it is now."""

    path: str
    change: LineChange
    at: float
    """When it was last changed, in seconds of the caller's clock."""

    @property
    def is_blank(self) -> bool:
        """Whether only white space changed."""
        return self.change.is_blank


History = tuple[EditedPlace, ...]
"""The entry that was last changed is the last."""


def with_change(history: History, path: str, before: Sequence[str], change: LineChange, at: float) -> History:
    """Return the history after one more change of the document at ``path``, whose lines were ``before``.

    Entries that the change touches become one with it. Raises ValueError where ``before`` has other lines.
    """
    change.apply(before)
    touched: list[LineChange] = []
    others: list[EditedPlace] = []
    for entry in history:
        known = entry.change
        if entry.path != path or known.new_end < change.start:
            others.append(entry)
        elif known.start > change.old_end:
            others.append(replace(entry, change=replace(known, start=known.start + change.growth)))
        else:
            touched.append(known)
    first = min([change.start, *(each.start for each in touched)])
    end = max([change.old_end, *(each.new_end for each in touched)])
    old = tuple(before[first:end])
    for known in sorted(touched, key=lambda each: each.start, reverse=True):
        old = replace(known.inverse, start=known.start - first).apply(old)
    new = (*before[first : change.start], *change.new, *before[change.old_end : end])
    newest = LineChange(first, old, new).trimmed()
    return tuple(others) if newest.old == newest.new else (*others, EditedPlace(path, newest, at))
