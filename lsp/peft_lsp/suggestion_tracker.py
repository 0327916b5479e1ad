"""What becomes of a suggestion, told from the edits that follow it: a state machine without clock, editor or daemon.

An offer is *live* while what is typed agrees with it. It ends accepted (the editor's command, or one edit that inserts
all that is left), partly accepted (an edit inserted more than one typed character of it), typed (by hand, to the end)
or rejected (an edit that disagrees, an offer elsewhere, the end of the document). An offer of more of the same text
makes the live one longer. What another offer replaces at the same place, or what ended sooner than anybody reads,
counts for nothing. An offer that ended is *settled*: the place of its text is followed through all edits until it is
looked at again.

Times are seconds of any clock that only goes forward. Texts have ``\\n`` line ends, places are lines and characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from peft_core.api_types import Outcome
from peft_lsp.documents import ContentChange, TextPosition, position_after

MIN_READING_S = 0.25
"""An offer that stood for less was not read."""
RECHECK_AFTER_S = 30.0
"""How long after it was accepted the text is looked at."""
LATE_ACCEPT_S = 1.0
"""How long the command may come after an edit that seemed to disagree: an editor may change what it inserts."""
CLOSING_PAIRS = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'", "`": "`", "<": ">"}
"""What editors close by themselves."""


@dataclass(frozen=True)
class ShownSuggestion:
    """A suggestion as it was made."""

    id: str
    start: TextPosition
    text: str
    """What would stand from ``start`` on ..."""
    typed: int
    """... of which so many characters stood there already ..."""
    over: str
    """... followed by this, which it overwrites."""

    @property
    def shown(self) -> int:
        """Characters it offers to write."""
        return len(self.text) - self.typed


@dataclass(frozen=True)
class PendingSuggestion:
    """An offer that may still be accepted: the document has ``region`` at ``start``."""

    offer: ShownSuggestion
    since: float
    start: TextPosition
    typed: int
    over: str
    accepted: int = 0
    """Characters of it that the editor inserted; the others were typed."""
    told: bool = False
    """The editor said that it accepts it; the edit is still to come."""

    @property
    def region(self) -> str:
        """What stands where the offer's text would."""
        return self.offer.text[: self.typed] + self.over

    def index(self, place: TextPosition) -> int | None:
        """How far into the region a place is; None outside."""
        if not self.start <= place <= position_after(self.start, self.region):
            return None
        line = place[0] - self.start[0]
        if line == 0:
            return place[1] - self.start[1]
        return sum(len(each) + 1 for each in self.region.split("\n")[:line]) + place[1]


@dataclass(frozen=True)
class SettledSuggestion:
    """An offer whose outcome is known, and the range where its text stands, or would."""

    offer: ShownSuggestion
    outcome: Outcome
    since: float
    accepted: int
    text: str
    """What of the offer stood there when it ended."""
    begin: TextPosition
    end: TextPosition

    @property
    def due(self) -> float:
        """When to look at it again."""
        return self.since + (LATE_ACCEPT_S if self.outcome is Outcome.REJECTED else RECHECK_AFTER_S)

    def after(self, edit: ContentChange) -> SettledSuggestion:
        """The same, with its range after an edit."""
        begin, end = shift_range(self.begin, self.end, edit)
        return replace(self, begin=begin, end=end)


class SuggestionTracker:
    """The offers of one document: at most one that is live, and those that are to be looked at again."""

    def __init__(self) -> None:
        self.live: PendingSuggestion | None = None
        self.settled: list[SettledSuggestion] = []

    @property
    def ids(self) -> set[str]:
        """Of all that have not been handed out."""
        return {each.offer.id for each in self.settled} | ({self.live.offer.id} if self.live else set())

    @property
    def next_due(self) -> float | None:
        """When ``due`` will have something."""
        return min((each.due for each in self.settled), default=None)

    def show(self, offer: ShownSuggestion, now: float) -> str:
        """An offer is made. Returns its id, or that of the live one if it comes to the same text or more of it."""
        if self.live is not None:
            place = position_after(offer.start, offer.text[: offer.typed])
            at = self.live.index(place)
            if at is None:
                self._end(Outcome.REJECTED, now)
            elif (same := _with_same_text(self.live, offer, at) or _with_longer_text(self.live, offer, at)) is not None:
                self.live = same
                return same.offer.id
            elif self.live.accepted or self.live.told:
                self._end(Outcome.PARTLY, now)
        self.live = PendingSuggestion(offer, now, offer.start, offer.typed, offer.over)
        return offer.id

    def edited(self, edits: Iterable[ContentChange], now: float) -> None:
        """The document was edited."""
        for edit in edits:
            self.settled = [each.after(edit) for each in self.settled]
            if self.live is not None:
                self._follow(self.live, edit, now)

    def took(self, id_: str, now: float) -> bool:
        """The editor says that it inserted an offer; its edit, if seen, counts no second time. Whether it is known."""
        if self.live is not None and self.live.offer.id == id_:
            self.live = replace(self.live, told=True)
            return True
        for number, each in enumerate(self.settled):
            if each.offer.id == id_:
                if each.outcome is not Outcome.ACCEPTED:
                    accepted = replace(each, outcome=Outcome.ACCEPTED, accepted=each.offer.shown, since=now)
                    self.settled[number] = replace(accepted, text=each.offer.text)
                return True
        return False

    def due(self, now: float) -> Sequence[SettledSuggestion]:
        """Those whose time has come; they are not followed any more."""
        ripe = [each for each in self.settled if each.due <= now]
        self.settled = [each for each in self.settled if each.due > now]
        return ripe

    def close(self, now: float) -> Sequence[SettledSuggestion]:
        """The document is closed: whatever is left, as it is now."""
        if self.live is not None:
            self._end(Outcome.REJECTED, now)
        left, self.settled = self.settled, []
        return left

    def _follow(self, live: PendingSuggestion, edit: ContentChange, now: float) -> None:
        beyond = position_after(live.start, live.region)
        if edit.end < live.start or edit.start > beyond or (edit.end == live.start and edit.start < live.start):
            self.live = replace(live, start=shift_position(live.start, edit))
            return
        first, last = live.index(edit.start), live.index(edit.end)
        region = None if first is None or last is None else live.region[:first] + edit.text + live.region[last:]
        grown = None if region is None else _with_region(live, region)
        if grown is None:
            ended = self._end(Outcome.REJECTED, now)
            if ended is not None and ended.outcome is Outcome.PARTLY:
                self.settled[-1] = ended.after(edit)
            elif ended is not None:  # the edit may be what the editor made of the offer
                self.settled[-1] = replace(ended, begin=edit.start, end=position_after(edit.start, edit.text))
            return
        by_hand = is_typing(edit)
        gained = 0 if by_hand else max(grown.typed - live.typed, 0)
        self.live = replace(grown, accepted=min(live.accepted + gained, grown.typed))
        if grown.typed == len(live.offer.text):
            self._end(Outcome.TYPED if by_hand else Outcome.ACCEPTED, now)

    def _end(self, outcome: Outcome, now: float) -> SettledSuggestion | None:
        """The live offer ends; None if it counts for nothing."""
        live, self.live = self.live, None
        if live is None:
            return None
        offer, accepted = live.offer, live.accepted
        if live.told:
            outcome, accepted = Outcome.ACCEPTED, offer.shown
        elif outcome is not Outcome.ACCEPTED and accepted:
            outcome = Outcome.PARTLY
        if outcome is Outcome.REJECTED and now - live.since < MIN_READING_S:
            return None
        text = offer.text if live.told else offer.text[: live.typed]
        end = position_after(live.start, live.region if live.told else text)
        self.settled.append(SettledSuggestion(offer, outcome, now, accepted, text, live.start, end))
        return self.settled[-1]


def shift_position(place: TextPosition, edit: ContentChange) -> TextPosition:
    """Where a place is after an edit that does not change what stands on both sides of it."""
    if place < edit.end:
        return place
    line, offset = position_after(edit.start, edit.text)
    if place[0] == edit.end[0]:
        return line, offset + place[1] - edit.end[1]
    return place[0] + line - edit.end[0], place[1]


def shift_range(begin: TextPosition, end: TextPosition, edit: ContentChange) -> tuple[TextPosition, TextPosition]:
    """Where a range is after an edit.

    What is inserted at its ends does not belong to it, unless it is empty; what replaces some of it does.
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
    """Whether an edit is what one key does: a character, with its closing bracket or the indentation of its line."""
    text = edit.text
    return len(text) <= 1 or text.isspace() or (len(text) == 2 and CLOSING_PAIRS.get(text[0]) == text[1])


def _with_region(live: PendingSuggestion, region: str) -> PendingSuggestion | None:
    """The offer with this text in its place; None where the two disagree."""
    text, over = live.offer.text, live.over
    if region == text:
        return replace(live, typed=len(text), over="")
    if region.endswith(over) and text.startswith(region[: len(region) - len(over)]):
        return replace(live, typed=len(region) - len(over))
    typed = live.typed + 1
    closed = CLOSING_PAIRS.get(text[live.typed : typed], "") + over
    if region == text[:typed] + closed:
        return replace(live, typed=typed, over=closed)
    return None


def _with_same_text(live: PendingSuggestion, offer: ShownSuggestion, at: int) -> PendingSuggestion | None:
    """The live offer, if accepting the new one ``at`` this place would leave the same text; else None."""
    region = live.region
    rest = offer.text[offer.typed :]
    if not region[at:].startswith(offer.over) or region[:at] + rest + region[at + len(offer.over) :] != live.offer.text:
        return None
    return replace(live, typed=at, over=region[at:])


def _with_longer_text(live: PendingSuggestion, offer: ShownSuggestion, at: int) -> PendingSuggestion | None:
    """The live offer with the text of the new one ``at`` this place, if that goes on where its own ends; else None."""
    text = live.region[:at] + offer.text[offer.typed :]
    if at >= len(text) or len(text) <= len(live.offer.text) or not text.startswith(live.offer.text):
        return None
    # Brackets that the editor closed since then were not there to be overwritten when it was made.
    over = offer.over if at == live.typed == live.offer.typed else live.offer.over
    return replace(live, offer=replace(live.offer, text=text, over=over), typed=at, over=offer.over)
