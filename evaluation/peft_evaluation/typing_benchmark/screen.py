"""The ghost text on the screen and how good it is. A state machine over edits and answers that knows no time.

A suggestion replaces a range of the document. It stays as long as the text of the range before the cursor is its
beginning, and the text of the range behind the cursor (a bracket that came by itself) is found in its rest in that
order. Any other edit hides it, and so does moving the cursor. While it can stay, an answer to a later request does not
replace it. This is how VS Code's editor behaves. Left out: the suggest widget, partial acceptance, alternatives.

A suggestion is judged by the rest of the cursor's line as it would be and as it will be. Where nothing of the line is
left, the next line that is not empty is compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from peft_evaluation.scorers.metrics import similarity
from peft_evaluation.typing_benchmark.traces import TraceEdit


@dataclass(frozen=True)
class GhostText:
    """``text`` is offered instead of what stands from ``start`` to ``end`` of the document as it is now."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class ScreenSuggestion:
    """What is to be seen at the cursor."""

    text: str
    """Characters that would be written ..."""
    replaced: int
    """... over so many behind the cursor."""


@dataclass(frozen=True)
class Screen:
    """One document, the cursor in it, and the suggestion it shows, if any."""

    document: str
    cursor: int = 0
    ghost: GhostText | None = None

    @property
    def shown(self) -> ScreenSuggestion | None:
        """What is to be seen now; None where nothing is."""
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
        """After an edit; the suggestion goes where it does not agree."""
        document = edit.applied(self.document)
        ghost = self.ghost
        if ghost is not None:
            inside = ghost.start <= edit.start and edit.end <= ghost.end
            grown = len(edit.text) - (edit.end - edit.start)
            ghost = replace(ghost, end=ghost.end + grown) if inside else None
        return Screen(document, cursor, ghost)._kept()

    def moved(self, cursor: int) -> Screen:
        """After the cursor was set elsewhere."""
        return Screen(self.document, cursor)

    def offered(self, ghost: GhostText | None) -> Screen:
        """After an answer for the document as it is now; None: there is nothing to suggest."""
        if self.shown is not None or ghost is None:
            return self
        return replace(self, ghost=ghost)._kept()

    def grown(self, ghost: GhostText | None) -> Screen:
        """After more of what is shown has arrived; anything that does not go on with it changes nothing."""
        if ghost is None:
            return self
        now, before = replace(self, ghost=ghost).shown, self.shown
        if now is None or (before is not None and not now.text.startswith(before.text)):
            return self
        return replace(self, ghost=ghost)

    def _kept(self) -> Screen:
        return self if self.ghost is None or self.shown is not None else replace(self, ghost=None)


def _in_order(part: str, whole: str) -> bool:
    """Whether the characters of ``part`` are found in ``whole`` in this order."""
    characters = iter(whole)
    return all(character in characters for character in part)


class LineJudgement(msgspec.Struct, frozen=True):
    """One suggestion against the truth."""

    exact: bool
    """The line is right to its last character, white space at its end aside."""
    similarity: float
    """Edit similarity of the line, 0 to 1."""
    offered: int
    """Characters shown ..."""
    right: int
    """... and those of them, from the first on, that will stand there: what a person could accept."""


SILENT = LineJudgement(exact=False, similarity=0.0, offered=0, right=0)
"""Nothing is shown."""


def judge(screen: Screen, truth: str) -> LineJudgement:
    """What the screen shows, against what comes next in the original."""
    shown = screen.shown
    if shown is None:
        return SILENT
    behind = screen.document[screen.cursor + shown.replaced :]
    would, will = next_line(shown.text + behind), next_line(truth)
    return LineJudgement(
        exact=would == will,
        similarity=similarity(would, will)["similarity"],
        offered=len(shown.text),
        right=_common(shown.text, truth),
    )


def next_line(text: str) -> str:
    """The rest of the line, or, after a line end, the first line that is not empty; without white space at its end."""
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
