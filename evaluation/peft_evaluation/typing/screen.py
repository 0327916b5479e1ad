"""What ghost text a person sees: a state machine over edits and answers, as VS Code's editor has it. Knows no time.

A suggestion replaces a range of the document. It stays as long as what stands in the range before the cursor is how it
begins, and what stands there behind the cursor (a bracket that came by itself) is found in its rest in that order; any
other edit, and moving the cursor, hides it. While one can stay, an answer to a later request does not replace it.
Left out: the suggest widget, partial acceptance, several alternatives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from peft_evaluation.typing.traces import Edit


@dataclass(frozen=True)
class Ghost:
    """``text`` is offered instead of what stands from ``start`` to ``end`` of the document as it is now."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Shown:
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
    ghost: Ghost | None = None

    @property
    def shown(self) -> Shown | None:
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
        return Shown(rest, len(behind))

    def edited(self, edit: Edit, cursor: int) -> Screen:
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

    def offered(self, ghost: Ghost | None) -> Screen:
        """After an answer for the document as it is now; None: there is nothing to suggest."""
        if self.shown is not None or ghost is None:
            return self
        return replace(self, ghost=ghost)._kept()

    def grown(self, ghost: Ghost | None) -> Screen:
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
