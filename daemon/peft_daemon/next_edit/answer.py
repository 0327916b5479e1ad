"""What the model wrote in place of a window, as a change of the document, and what speaks for it.

An answer is the whole window, most of it as it was. The change is what differs; how likely it is right is judged by the
tokens of the lines that differ, as tokens that only copy are always likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from peft_core.api_types import FinishReason
from peft_core.code.edits import LineChange, join_lines, split_lines
from peft_core.next_edit_types import EditSilence
from peft_daemon.completion.confidence import Evidence, WrittenToken, evidence
from peft_daemon.next_edit.formats import EditFormat
from peft_daemon.next_edit.moment import Moment
from peft_daemon.next_edit.places import Place

MOST_GROWTH_LINES = 12
"""An answer with so many more lines than its window is something new, or goes round in circles."""
NO_EVIDENCE = Evidence(0.0, 0, 0)


@dataclass(frozen=True)
class WrittenWindow:
    """What the model wrote for one place."""

    text: str
    tokens: tuple[WrittenToken, ...]
    reason: FinishReason


@dataclass(frozen=True)
class EditDraft:
    """A change that an answer makes, and what is known of it; without a change, why there is none."""

    place: Place
    change: LineChange | None
    silence: EditSilence | None = None
    found: Evidence = NO_EVIDENCE
    """Of the tokens of the lines that change, and of the line end behind them."""
    detail: str = ""


def draft(moment: Moment, place: Place, written: WrittenWindow, form: EditFormat) -> EditDraft:
    """Return the change that an answer makes of a place."""
    window = moment.lines[place.start : place.end]
    text = written.text
    if form.same and text.strip() == form.same:
        return EditDraft(place, None, EditSilence.UNCHANGED)
    if written.reason is not FinishReason.STOP:
        return EditDraft(place, None, EditSilence.BROKEN, detail=f"the answer ended by {written.reason}")
    body = text.removesuffix("\n") + "\n"
    if form.cursor in body:
        body = body.replace(form.cursor, "")
    new = split_lines(body)
    if not text.strip() or len(new) > len(window) + MOST_GROWTH_LINES:
        return EditDraft(place, None, EditSilence.BROKEN, detail="the answer does not fit the lines that were shown")
    change = LineChange(place.start, window, new).trimmed()
    if change.is_blank:
        return EditDraft(place, None, EditSilence.UNCHANGED)
    first = len(join_lines(new[: change.start - place.start]))
    last = first + len(join_lines(change.new))
    # Where lines only go, the line that comes next in their place tells how sure that is.
    following = text.find("\n", last)
    end = last if change.new else (following + 1 if following >= 0 else len(text))
    found = evidence(written.tokens, first, max(end, first + 1))
    if reverses(moment, change):
        return EditDraft(place, change, EditSilence.REVERSAL, found)
    return EditDraft(place, change, None, found)


def reverses(moment: Moment, change: LineChange) -> bool:
    """Whether a change takes back, in whole or in part, what the history did."""
    for known in (each.change for each in moment.edits if each.here):
        if change.start < max(known.new_end, known.start + 1) and known.start < max(change.old_end, change.start + 1):
            now = moment.lines[known.start : known.new_end]
            first, last = min(change.start, known.start), max(change.old_end, known.new_end)
            before = moment.lines[first:last]
            after = LineChange(change.start - first, change.old, change.new).apply(before)
            then = (*before[: known.start - first], *known.old, *before[known.start - first + len(now) :])
            if _likeness(after, then) > _likeness(before, then):
                return True
    return False


def _likeness(one: Sequence[str], other: Sequence[str]) -> float:
    return SequenceMatcher(None, "\n".join(one), "\n".join(other), autojunk=False).ratio()
