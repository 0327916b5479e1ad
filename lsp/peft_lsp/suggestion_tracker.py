"""The outcome of a suggestion, found from the edits that follow it: a state machine without clock, editor or daemon.

A suggestion is *pending* while the typed text agrees with it. It ends as accepted (by the editor's command, or by one
edit that inserts all the rest), partly accepted (an edit inserted more than one character of it), typed (by hand, to
the end) or rejected (by an edit that disagrees, a suggestion elsewhere, or closing the document). A new suggestion that
continues the same text makes the pending one longer. A suggestion that another replaces at the same position, or that
ends before a user could read it, does not count. A suggestion that ended is *settled*: the range of its text is
followed through all edits until the text is checked again.

Times are seconds of any clock that only goes forward. Texts have ``\\n`` line ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from peft_core.api_types import Outcome
from peft_lsp.documents import ContentChange, TextPosition, position_after, shift_position

MIN_READING_S = 0.25
"""A suggestion that was shown for a shorter time was not read."""
RECHECK_AFTER_S = 30.0
"""How long after acceptance the text is checked again."""
LATE_ACCEPT_S = 1.0
"""How long after an edit that disagrees the accept command may come: editors may change what they insert."""
CLOSING_PAIRS = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'", "`": "`", "<": ">"}
"""Brackets and quotes that editors close by themselves."""


@dataclass(frozen=True)
class TrackedSuggestion:
    """A suggestion as it was shown first."""

    id: str
    start: TextPosition
    text: str
    """The text from ``start`` on, if the suggestion is accepted."""
    typed: int
    """Number of characters of ``text`` that were in the document already."""
    over: str
    """The text after those, which the suggestion overwrites."""

    @property
    def shown(self) -> int:
        """Number of characters that it would insert."""
        return len(self.text) - self.typed


@dataclass(frozen=True)
class PendingSuggestion:
    """A suggestion that may still be accepted: the document has ``region`` at ``start``."""

    suggestion: TrackedSuggestion
    since: float
    start: TextPosition
    typed: int
    over: str
    accepted: int = 0
    """Number of its characters that the editor inserted; the others were typed."""
    accept_announced: bool = False
    """Whether the accept command came before its edit."""

    @property
    def region(self) -> str:
        """The text in the document that the suggestion's text would replace."""
        return self.suggestion.text[: self.typed] + self.over

    def index(self, place: TextPosition) -> int | None:
        """Return how far into the region a position is; None outside."""
        if not self.start <= place <= position_after(self.start, self.region):
            return None
        line = place[0] - self.start[0]
        if line == 0:
            return place[1] - self.start[1]
        return sum(len(each) + 1 for each in self.region.split("\n")[:line]) + place[1]


@dataclass(frozen=True)
class SettledSuggestion:
    """A suggestion whose outcome is known, and the range of its text."""

    suggestion: TrackedSuggestion
    outcome: Outcome
    since: float
    accepted: int
    text: str
    """The part of the suggestion that was in the document when it ended."""
    begin: TextPosition
    end: TextPosition

    @property
    def due(self) -> float:
        """When to check its text again."""
        return self.since + (LATE_ACCEPT_S if self.outcome is Outcome.REJECTED else RECHECK_AFTER_S)

    def after(self, edit: ContentChange) -> SettledSuggestion:
        """Return it with its range after an edit."""
        begin, end = shift_range(self.begin, self.end, edit)
        return replace(self, begin=begin, end=end)


class SuggestionTracker:
    """The suggestions of one document: at most one pending, and those whose text is still to be checked."""

    def __init__(self) -> None:
        self.pending: PendingSuggestion | None = None
        self.settled: list[SettledSuggestion] = []

    @property
    def ids(self) -> set[str]:
        """The ids of all suggestions that ``take_due`` or ``close`` has not returned yet."""
        return {each.suggestion.id for each in self.settled} | ({self.pending.suggestion.id} if self.pending else set())

    @property
    def next_due(self) -> float | None:
        """When ``take_due`` will next return something; None if nothing is settled."""
        return min((each.due for each in self.settled), default=None)

    def show(self, suggestion: TrackedSuggestion, now: float) -> str:
        """Track a new suggestion; return its id, or the pending one's if it is the same or continues it."""
        if self.pending is not None:
            at = self.pending.index(position_after(suggestion.start, suggestion.text[: suggestion.typed]))
            if at is None:
                self._end(Outcome.REJECTED, now)
            elif (same := _merged(self.pending, suggestion, at)) is not None:
                self.pending = same
                return same.suggestion.id
            elif self.pending.accepted or self.pending.accept_announced:
                self._end(Outcome.PARTLY, now)
        self.pending = PendingSuggestion(suggestion, now, suggestion.start, suggestion.typed, suggestion.over)
        return suggestion.id

    def edited(self, changes: Iterable[ContentChange], now: float) -> None:
        """Update all suggestions for changes of the document."""
        for change in changes:
            self.settled = [each.after(change) for each in self.settled]
            if self.pending is not None:
                self._follow(self.pending, change, now)

    def dismiss(self, now: float) -> None:
        """Note that the user refused the pending suggestion, however short it stood there."""
        if self.pending is not None:
            self._end(Outcome.REJECTED, now, read=True)

    def replace(self, id_: str, chosen: TrackedSuggestion, now: float) -> None:
        """Note that the editor inserted another one that was offered with the suggestion ``id_``."""
        if self.pending is not None and self.pending.suggestion.id == id_:
            self.pending = None
        self.settled = [each for each in self.settled if each.suggestion.id != id_]
        end = position_after(chosen.start, chosen.text)
        self.settled.append(
            SettledSuggestion(chosen, Outcome.ACCEPTED, now, chosen.shown, chosen.text, chosen.start, end)
        )

    def accept(self, id_: str, now: float) -> bool:
        """Note that the editor inserted a suggestion; return whether it is known.

        Its edit is not counted again.
        """
        if self.pending is not None and self.pending.suggestion.id == id_:
            self.pending = replace(self.pending, accept_announced=True)
            return True
        for number, each in enumerate(self.settled):
            if each.suggestion.id == id_:
                if each.outcome is not Outcome.ACCEPTED:
                    accepted = replace(each, outcome=Outcome.ACCEPTED, accepted=each.suggestion.shown, since=now)
                    self.settled[number] = replace(accepted, text=each.suggestion.text)
                return True
        return False

    def take_due(self, now: float) -> Sequence[SettledSuggestion]:
        """Return the settled suggestions that are due, and stop following them."""
        due = [each for each in self.settled if each.due <= now]
        self.settled = [each for each in self.settled if each.due > now]
        return due

    def close(self, now: float) -> Sequence[SettledSuggestion]:
        """Settle and return all suggestions, as the document is closed."""
        if self.pending is not None:
            self._end(Outcome.REJECTED, now)
        left, self.settled = self.settled, []
        return left

    def _follow(self, pending: PendingSuggestion, edit: ContentChange, now: float) -> None:
        beyond = position_after(pending.start, pending.region)
        if (
            edit.end < pending.start
            or edit.start > beyond
            or (edit.end == pending.start and edit.start < pending.start)
        ):
            self.pending = replace(pending, start=shift_position(pending.start, edit))
            return
        first, last = pending.index(edit.start), pending.index(edit.end)
        region = None if first is None or last is None else pending.region[:first] + edit.text + pending.region[last:]
        grown = None if region is None else _with_region(pending, region)
        if grown is None:
            ended = self._end(Outcome.REJECTED, now)
            if ended is not None and ended.outcome is Outcome.PARTLY:
                self.settled[-1] = ended.after(edit)
            elif ended is not None:  # the edit may be the suggestion, changed by the editor
                self.settled[-1] = replace(ended, begin=edit.start, end=position_after(edit.start, edit.text))
            return
        by_hand = is_typing(edit)
        gained = 0 if by_hand else max(grown.typed - pending.typed, 0)
        self.pending = replace(grown, accepted=min(pending.accepted + gained, grown.typed))
        if grown.typed == len(pending.suggestion.text):
            self._end(Outcome.TYPED if by_hand else Outcome.ACCEPTED, now)

    def _end(self, outcome: Outcome, now: float, *, read: bool = False) -> SettledSuggestion | None:
        """End the pending suggestion; None if it does not count, as one that nobody can have ``read``."""
        pending, self.pending = self.pending, None
        if pending is None:
            return None
        suggestion, accepted = pending.suggestion, pending.accepted
        if pending.accept_announced:
            outcome, accepted = Outcome.ACCEPTED, suggestion.shown
        elif outcome is not Outcome.ACCEPTED and accepted:
            outcome = Outcome.PARTLY
        if outcome is Outcome.REJECTED and not read and now - pending.since < MIN_READING_S:
            return None
        text = suggestion.text if pending.accept_announced else suggestion.text[: pending.typed]
        end = position_after(pending.start, pending.region if pending.accept_announced else text)
        self.settled.append(SettledSuggestion(suggestion, outcome, now, accepted, text, pending.start, end))
        return self.settled[-1]


def shift_range(begin: TextPosition, end: TextPosition, edit: ContentChange) -> tuple[TextPosition, TextPosition]:
    """Return where a range is after an edit.

    Text inserted at its ends does not belong to it, unless it is empty; text that replaces some of it does.
    """
    if begin == end == edit.start == edit.end:
        return begin, position_after(edit.start, edit.text)
    if edit.end <= begin:
        return shift_position(begin, edit), shift_position(end, edit)
    if edit.start >= end:
        return begin, end
    behind = position_after(edit.start, edit.text)
    return min(begin, edit.start), shift_position(end, edit) if edit.end <= end else behind


def is_typing(edit: ContentChange) -> bool:
    """Return whether an edit may come from one key: a character, with its closing bracket or an indentation."""
    text = edit.text
    return len(text) <= 1 or text.isspace() or (len(text) == 2 and CLOSING_PAIRS.get(text[0]) == text[1])


def _with_region(pending: PendingSuggestion, region: str) -> PendingSuggestion | None:
    """Return the suggestion with this text in its region; None if the two disagree."""
    text, over = pending.suggestion.text, pending.over
    if region == text:
        return replace(pending, typed=len(text), over="")
    if region.endswith(over) and text.startswith(region[: len(region) - len(over)]):
        return replace(pending, typed=len(region) - len(over))
    typed = pending.typed + 1
    closed = CLOSING_PAIRS.get(text[pending.typed : typed], "") + over
    if region == text[:typed] + closed:
        return replace(pending, typed=typed, over=closed)
    return None


def _merged(pending: PendingSuggestion, suggestion: TrackedSuggestion, at: int) -> PendingSuggestion | None:
    """Return the pending suggestion, longer if necessary, if the new one has or continues its text; else None."""
    return _with_same_text(pending, suggestion, at) or _with_longer_text(pending, suggestion, at)


def _with_same_text(pending: PendingSuggestion, suggestion: TrackedSuggestion, at: int) -> PendingSuggestion | None:
    """Return the pending suggestion if accepting the new one at index ``at`` gives the same text; else None."""
    region = pending.region
    rest = suggestion.text[suggestion.typed :]
    if (
        not region[at:].startswith(suggestion.over)
        or region[:at] + rest + region[at + len(suggestion.over) :] != pending.suggestion.text
    ):
        return None
    return replace(pending, typed=at, over=region[at:])


def _with_longer_text(pending: PendingSuggestion, suggestion: TrackedSuggestion, at: int) -> PendingSuggestion | None:
    """Return the pending suggestion with the new one's text, if that continues its own; else None."""
    text = pending.region[:at] + suggestion.text[suggestion.typed :]
    if at >= len(text) or len(text) <= len(pending.suggestion.text) or not text.startswith(pending.suggestion.text):
        return None
    # Brackets that the editor has closed since then are not part of what the suggestion overwrites.
    over = suggestion.over if at == pending.typed == pending.suggestion.typed else pending.suggestion.over
    return replace(
        pending, suggestion=replace(pending.suggestion, text=text, over=over), typed=at, over=suggestion.over
    )
