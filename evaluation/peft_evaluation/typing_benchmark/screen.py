"""The ghost text on the screen, and its judgement: a state machine over edits and answers, without time.

A suggestion replaces a range of the document. It stays valid while the range's text before the cursor is the beginning
of the suggestion, and the characters of the range after the cursor (e.g. an inserted closing bracket) occur in its rest
in the same order. Any other edit hides it, and so does moving the cursor. While it is valid, later answers do not
replace it. This is how VS Code's editor behaves, without the suggest widget, partial acceptance and alternatives.

A suggestion is judged by comparing the rest of the cursor's line with the suggestion and in the original. If nothing of
the line is left, the next line that is not empty is compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from peft_evaluation.scorers.metrics import similarity
from peft_evaluation.typing_benchmark.traces import TraceEdit


@dataclass(frozen=True)
class GhostText:
    """A suggestion: ``text`` in place of the document's text from ``start`` to ``end``."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class ScreenSuggestion:
    """The suggestion as it is shown at the cursor."""

    text: str
    """The text that would be inserted."""
    replaced: int
    """Number of characters after the cursor that it would replace."""


@dataclass(frozen=True)
class Screen:
    """One document, the cursor in it, and the suggestion it shows, if any."""

    document: str
    cursor: int = 0
    ghost: GhostText | None = None

    @property
    def shown(self) -> ScreenSuggestion | None:
        """The suggestion that is shown now; None for none."""
        if self.ghost is None:
            return None
        ghost, cursor = self.ghost, self.cursor
        if not ghost.start <= cursor <= ghost.end:
            return None
        typed = self.document[ghost.start : cursor]
        if not ghost.text.startswith(typed):
            return None
        rest, behind = ghost.text[len(typed) :], self.document[cursor : ghost.end]
        if not rest or rest == behind or not _in_order(behind, rest):
            return None
        return ScreenSuggestion(rest, len(behind))

    def edited(self, edit: TraceEdit, cursor: int) -> Screen:
        """Return the screen after an edit; the suggestion disappears if it is no longer valid."""
        document = edit.applied(self.document)
        ghost = self.ghost
        if ghost is not None:
            inside = ghost.start <= edit.start and edit.end <= ghost.end
            grown = len(edit.text) - (edit.end - edit.start)
            ghost = replace(ghost, end=ghost.end + grown) if inside else None
        return Screen(document, cursor, ghost)._kept()

    def moved(self, cursor: int) -> Screen:
        """Return the screen after the cursor was moved."""
        return Screen(self.document, cursor)

    def offered(self, ghost: GhostText | None) -> Screen:
        """Return the screen after an answer for the current document; None is an answer without a suggestion."""
        if self.shown is not None or ghost is None:
            return self
        return replace(self, ghost=ghost)._kept()

    def grown(self, ghost: GhostText | None) -> Screen:
        """Return the screen after a longer version of the suggestion has arrived; other text is ignored."""
        if ghost is None:
            return self
        now, before = replace(self, ghost=ghost).shown, self.shown
        if now is None or (before is not None and not now.text.startswith(before.text)):
            return self
        return replace(self, ghost=ghost)

    def _kept(self) -> Screen:
        return self if self.ghost is None or self.shown is not None else replace(self, ghost=None)


def _in_order(part: str, whole: str) -> bool:
    """Return whether the characters of ``part`` occur in ``whole`` in this order."""
    characters = iter(whole)
    return all(character in characters for character in part)


class LineJudgement(msgspec.Struct, frozen=True):
    """One suggestion compared with the original."""

    exact: bool
    """The line is correct, apart from white space at its end."""
    similarity: float
    """Edit similarity of the line, 0 to 1."""
    offered: int
    """Number of characters shown."""
    right: int
    """Number of correct characters from the first one on, which a person could accept."""


NO_SUGGESTION = LineJudgement(exact=False, similarity=0.0, offered=0, right=0)
"""The judgement when nothing is shown."""


def judge(screen: Screen, truth: str) -> LineJudgement:
    """Compare what the screen shows with ``truth``, the original's text from the cursor on."""
    shown = screen.shown
    if shown is None:
        return NO_SUGGESTION
    behind = screen.document[screen.cursor + shown.replaced :]
    would, will = next_line(shown.text + behind), next_line(truth)
    return LineJudgement(
        exact=would == will,
        similarity=similarity(would, will)["similarity"],
        offered=len(shown.text),
        right=_common(shown.text, truth),
    )


def next_line(text: str) -> str:
    """Return the rest of the line, or the first non-empty line if ``text`` begins at a line's end; right-stripped."""
    rest, end, below = text.partition("\n")
    if rest.strip() or not end:
        return rest.rstrip()
    lines = (line.rstrip() for line in below.split("\n"))
    return "\n" + next((line for line in lines if line), "")


def _common(one: str, other: str) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
