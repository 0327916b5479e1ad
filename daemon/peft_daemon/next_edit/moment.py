"""A document in the middle of a change, as prompts, places and answers look at it.

It is made of a request. Lines have no line ends; the document as it was before the history is found by undoing the
edits of the history that lie in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from peft_core.code.document import normalize_newlines
from peft_core.code.edits import History, LineChange, Lines, join_lines, split_lines
from peft_core.next_edit_types import Diagnostic, NextEditRequest, PastEdit
from peft_core.privacy.files import secret_file


@dataclass(frozen=True)
class KnownEdit:
    """An edit of the history. ``change.start`` is a line of its document as it is now."""

    path: str
    change: LineChange
    here: bool
    """It lies in the document of the moment."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What is known when a next edit is asked for."""

    path: str
    language: str
    lines: Lines
    line: int
    column: int
    edits: tuple[KnownEdit, ...]
    """The oldest first."""
    diagnostics: tuple[Diagnostic, ...] = ()

    @cached_property
    def before(self) -> Lines:
        """The document as it was before the history; as it is where the history does not fit it."""
        lines = self.lines
        for each in sorted((each.change for each in self.edits if each.here), key=lambda each: -each.start):
            lines = each.inverse.apply(lines)
        return lines

    def line_before(self, line: int) -> int:
        """Return where a line of the document stood before the history; of a new one, where it was put."""
        moved = line
        for each in (each.change for each in self.edits if each.here):
            if each.new_end <= line:
                moved -= each.growth
            elif each.start <= line:
                moved -= max(0, line - each.start - len(each.old))
        return max(0, min(moved, len(self.before)))


def of_request(asked: NextEditRequest) -> Moment:
    """Return the moment of a request. Edits of files with secrets, and those that do not fit, are left out."""
    lines = split_lines(normalize_newlines(asked.text))
    return Moment(
        path=asked.path or "",
        language=asked.language,
        lines=lines,
        line=min(asked.line, max(0, len(lines) - 1)),
        column=asked.column,
        edits=_fitting(asked.edits, asked.path, lines),
        diagnostics=tuple(asked.diagnostics),
    )


def of_history(path: str, language: str, lines: Lines, history: History, *, line: int, column: int) -> Moment:
    """Return the moment of a document with the changes of a history, as it would be asked for."""
    edits = tuple(KnownEdit(each.path, each.change, here=each.path == path) for each in history)
    return Moment(path=path, language=language, lines=lines, line=line, column=column, edits=edits)


def request_of(moment: Moment) -> NextEditRequest:
    """Return the request for a moment, as an editor would send it."""
    return NextEditRequest(
        text=join_lines(moment.lines),
        line=moment.line,
        column=moment.column,
        edits=[
            PastEdit(each.path, each.change.start, join_lines(each.change.old), join_lines(each.change.new))
            for each in moment.edits
        ],
        language=moment.language,
        path=moment.path,
    )


def _fitting(edits: Sequence[PastEdit], path: str | None, lines: Lines) -> tuple[KnownEdit, ...]:
    """Return the edits that are there and do not overlap."""
    found: list[KnownEdit] = []
    taken: list[LineChange] = []
    for each in reversed(edits):
        if secret_file(each.path) is not None:
            continue
        change = LineChange(each.start, split_lines(each.old), split_lines(each.new)).trimmed()
        here = each.path == path
        if change.old == change.new:
            continue
        if here:
            if lines[change.start : change.new_end] != change.new or change.start > len(lines):
                continue
            if any(change.start < other.new_end and other.start < change.new_end for other in taken):
                continue
            taken.append(change)
        found.append(KnownEdit(each.path, change, here))
    return tuple(reversed(found))
