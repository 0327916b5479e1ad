"""What the user changed lately, in all documents of one editor: what next edits follow from.

One entry for each place, as ``peft_core.code.edits`` keeps them, in memory only. A document is followed from its first
change on, as far as next edits are wanted there. What did not come from a keyboard is no edit: a document that is
opened again, replaced as a whole, or changed by more than ``LONGEST_PAST_EDIT`` characters at once forgets its entries.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from peft_core.code.edits import EditedPlace, History, LineChange, Lines, join_lines, with_change
from peft_core.next_edit_types import LONGEST_PAST_EDIT, MOST_PAST_EDITS, PastEdit
from peft_core.privacy.files import secret_file
from peft_core.privacy.values import secret_values
from peft_lsp.documents import ContentChange, OpenDocument, model_text

LONGEST_KEPT_S = 30 * 60
"""Entries that were not changed for longer are dropped."""
MOST_ENTRIES = 4 * MOST_PAST_EDITS
"""Entries that are kept: some are not sent, as those that only move white space."""
MOST_LINES = 20_000
"""Longer documents are not followed, so that a keystroke in them costs no more than elsewhere."""

IsWanted = Callable[[OpenDocument], bool]
PathOf = Callable[[str], str | None]


@dataclass
class _Followed:
    """The lines of a document as they were after its last change, without line ends.

    As in ``OpenDocument``, the last one is empty where the text ends a line.
    """

    lines: list[str]

    @property
    def whole(self) -> Lines:
        """The lines as ``peft_core.code.edits`` counts them."""
        return _whole(self.lines)


class EditHistory:
    """The changes of the documents of one editor."""

    def __init__(self, is_wanted: IsWanted, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``is_wanted`` says whether a document's changes are kept; one that holds secrets is never asked for."""
        self._is_wanted, self._clock = is_wanted, clock
        self._followed: dict[str, _Followed] = {}
        self._history: History = ()

    @property
    def entries(self) -> History:
        """What is kept, the newest last; ``path`` is the document's URI."""
        return self._history

    def changing(self, document: OpenDocument | None) -> None:
        """Look at a document that is about to change."""
        if document is None or document.uri in self._followed:
            return
        if not self._follows(document):
            self._forget_entries(document.uri)
            return
        followed = self._followed[document.uri] = _Followed(_plain_lines(document))
        lines, taken = followed.whole, 0
        for each in sorted((each.change for each in self._of(document.uri)), key=lambda change: change.start):
            if each.start < taken or lines[each.start : each.new_end] != each.new:
                self._forget_entries(document.uri)  # it was changed while it was closed
                return
            taken = each.new_end

    def changed(self, document: OpenDocument | None, changes: Sequence[ContentChange], *, replaced: bool) -> None:
        """Note the changes of a document; ``replaced``: it was given as a whole."""
        followed = self._followed.get(document.uri) if document is not None else None
        if document is None or followed is None:
            return
        if replaced or not self._follows(document):
            self.forget(document.uri)
            return
        for each in changes:
            if not self._take(document.uri, followed, each):
                self.forget(document.uri)
                return
        if len(followed.lines) != len(document.lines):  # a change met a line end that is two characters
            self.forget(document.uri)

    def closed(self, uri: str) -> None:
        """Note that a document was closed; its entries stay."""
        self._followed.pop(uri, None)

    def forget(self, uri: str) -> None:
        """Forget a document and its entries."""
        self._followed.pop(uri, None)
        self._forget_entries(uri)

    def past_edits(self, path_of: PathOf) -> list[PastEdit]:
        """Return what the daemon may know, the oldest first; ``path_of`` returns a document's path, or None.

        Entries that only move white space, that are too long, or that have secrets in them are left out.
        """
        self._drop_old()
        found: list[PastEdit] = []
        for entry in reversed(self._history):
            if len(found) == MOST_PAST_EDITS:
                break
            path = path_of(entry.path)
            old, new = (model_text(join_lines(side)) for side in (entry.change.old, entry.change.new))
            if path is None or entry.is_blank or max(len(old), len(new)) > LONGEST_PAST_EDIT:
                continue
            if secret_values(old) or secret_values(new):
                continue
            found.append(PastEdit(path, entry.change.start, old, new))
        return found[::-1]

    def _take(self, uri: str, followed: _Followed, edit: ContentChange) -> bool:
        """Note one change; False if it is none that a user made."""
        first, last = edit.start[0], edit.end[0]
        lines = followed.lines
        if last >= len(lines) or len(edit.text) > LONGEST_PAST_EDIT:
            return False
        old = lines[first : last + 1]
        new = (old[0][: edit.start[1]] + edit.text + old[-1][edit.end[1] :]).split("\n")
        if sum(map(len, old)) + len(old) > LONGEST_PAST_EDIT:
            return False
        before, at_end = followed.whole, last == len(lines) - 1
        lines[first : last + 1] = new
        change = LineChange(first, _whole(old) if at_end else tuple(old), _whole(new) if at_end else tuple(new))
        if change.old != change.new:
            self._history = with_change(self._history, uri, before, change.trimmed(), self._clock())[-MOST_ENTRIES:]
        self._drop_old()
        return True

    def _follows(self, document: OpenDocument) -> bool:
        # Lines of a notebook's cell are not those of its file.
        if document.file_uri != document.uri or len(document.lines) > MOST_LINES:
            return False
        return secret_file(document.uri, document.language) is None and self._is_wanted(document)

    def _of(self, uri: str) -> list[EditedPlace]:
        return [each for each in self._history if each.path == uri]

    def _forget_entries(self, uri: str) -> None:
        self._history = tuple(each for each in self._history if each.path != uri)

    def _drop_old(self) -> None:
        oldest = self._clock() - LONGEST_KEPT_S
        self._history = tuple(each for each in self._history if each.at >= oldest)


def _plain_lines(document: OpenDocument) -> list[str]:
    return [line.rstrip("\r\n") for line in document.lines]


def _whole(lines: Sequence[str]) -> Lines:
    """Return the last lines of a document without the empty one behind its last line end."""
    return tuple(lines if lines[-1] else lines[:-1])
