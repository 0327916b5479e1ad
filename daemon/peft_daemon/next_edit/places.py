"""Where the next edit may be: around the cursor, and where the change itself points to.

A change that takes a word away points to the other places that still have it: the uses of what was renamed, or whose
parameters changed. A line that looked like the changed one before is a sibling of it. What the editor's own tools
complain of lies where something is to be mended. Each place is a window of lines, which the model writes again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from peft_core.code.commit_edits import changed_words, words_of
from peft_core.code.edits import LineChange
from peft_daemon.next_edit.moment import Moment

LINES_ABOVE = 2
LINES_BELOW = 5
"""Lines of a window above and below its middle, as Sweep's models were trained."""
MOST_PLACES = 3
MIN_LIKENESS = 0.5
"""Share of the words of a line and of a changed line that both have, from which on they are siblings."""
MIN_SIBLING_WORDS = 3


@dataclass(frozen=True)
class Place:
    """A window of the document, from line ``start`` to before ``end``, and why it was chosen."""

    start: int
    end: int
    why: str


def places(moment: Moment) -> list[Place]:
    """Return the windows to look at, the likeliest first, at most ``MOST_PLACES``; none overlaps one before it."""
    found: list[Place] = []
    for middle, why in _middles(moment):
        window = _window(moment, middle, why)
        if window.start < window.end and not any(window.start < each.end and each.start < window.end for each in found):
            found.append(window)
            if len(found) == MOST_PLACES:
                break
    return found


def _window(moment: Moment, middle: int, why: str) -> Place:
    return Place(max(0, middle - LINES_ABOVE), min(len(moment.lines), middle + LINES_BELOW + 1), why)


def _middles(moment: Moment) -> Iterator[tuple[int, str]]:
    """Yield the lines that windows are laid around, with the reason for each."""
    newest = moment.edits[-1].change if moment.edits else None
    yield moment.line, "around the cursor"
    for each in moment.diagnostics:
        if each.start < len(moment.lines):
            yield each.start, f"the editor says: {each.message.splitlines()[0][:80] if each.message else 'a problem'}"
    if newest is None:
        return
    changed = [each.change for each in moment.edits if each.here]
    near = sorted(
        (at for at in range(len(moment.lines)) if not any(each.start <= at < each.new_end for each in changed)),
        key=lambda at: (at < moment.line, abs(at - moment.line)),  # people go on downwards
    )
    for change in (each.change for each in reversed(moment.edits)):
        for word in sorted(gone_words(change) or changed_words(change), key=lambda each: (-len(each), each)):
            pattern = re.compile(rf"\b{re.escape(word)}\b")
            yield from ((at, f"`{word}` stands here too") for at in near if pattern.search(moment.lines[at]))
    for change in (each.change for each in reversed(moment.edits)):
        olds = [frozenset(words_of((line,))) for line in change.old]
        for at in near:
            words = frozenset(words_of((moment.lines[at],)))
            if len(words) >= MIN_SIBLING_WORDS and any(_likeness(words, old) >= MIN_LIKENESS for old in olds):
                yield at, "this line is like the one that was changed"


def gone_words(change: LineChange) -> frozenset[str]:
    """Return the words that a change took away entirely."""
    return changed_words(change) - frozenset(words_of(change.new))


def _likeness(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one or other else 0.0
