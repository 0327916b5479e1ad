"""Suggestions that the user refused (``peft-daemon/dismissed``): none of them is shown there again.

A place is where the refused suggestion began; it moves with edits above it. What begins with the refused text, or is
its beginning, is the same suggestion, also after a part of it was typed. Who asks by hand sees it all the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from peft_lsp.documents import (
    ContentChange,
    DocumentSnapshot,
    OpenDocument,
    TextPosition,
    normalize_line_ends,
    shift_position,
)

MAX_REFUSED = 32
"""Refusals that are remembered for one document."""


@dataclass(frozen=True)
class PlacedText:
    """A text, and where its first character is or would be."""

    start: TextPosition
    text: str

    def after(self, edit: ContentChange) -> PlacedText | None:
        """Return it after an edit; None if its place was edited away."""
        above = edit.end < self.start or (edit.end == self.start and edit.start < self.start)
        if above:
            return replace(self, start=shift_position(self.start, edit))
        return None if edit.start < self.start else self


class Refusals:
    """What was shown last, and what was refused, in each open document."""

    def __init__(self) -> None:
        self._shown: dict[str, PlacedText] = {}
        self._refused: dict[str, deque[PlacedText]] = {}

    def shown(self, uri: str, start: TextPosition, text: str) -> None:
        """Note what the document shows now."""
        self._shown[uri] = PlacedText(start, normalize_line_ends(text))

    def refuse(self, uri: str, position: TextPosition) -> bool:
        """Refuse what is shown at a position; return whether anything is."""
        shown = self._shown.get(uri)
        if shown is None or position < shown.start:
            return False
        del self._shown[uri]
        self._refused.setdefault(uri, deque(maxlen=MAX_REFUSED)).append(shown)
        return True

    def refuses(self, document: OpenDocument, snapshot: DocumentSnapshot, text: str) -> bool:
        """Return whether ``text`` at the snapshot's cursor is what the user has refused there."""
        cursor = (snapshot.line, snapshot.offset)
        for refused in self._refused.get(snapshot.uri, ()):
            if refused.start > cursor:
                continue
            whole = normalize_line_ends(document.between(refused.start, cursor) + text).rstrip()
            if whole.startswith(refused.text.rstrip()) or refused.text.startswith(whole):
                return True
        return False

    def edited(self, uri: str, changes: Iterable[ContentChange]) -> None:
        """Move all places of a document with its edits."""
        for edit in changes:
            if (shown := self._shown.pop(uri, None)) is not None and (moved := shown.after(edit)) is not None:
                self._shown[uri] = moved
            if (refused := self._refused.get(uri)) is not None:
                kept = (each.after(edit) for each in refused)
                self._refused[uri] = deque((each for each in kept if each is not None), maxlen=MAX_REFUSED)

    def forget(self, uri: str) -> None:
        """Forget a document that was closed."""
        self._shown.pop(uri, None)
        self._refused.pop(uri, None)
