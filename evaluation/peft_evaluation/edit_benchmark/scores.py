"""Scores of one suggestion in one scenario. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rapidfuzz.distance import Indel, Levenshtein

from peft_core.code.edits import LineChange, Lines, join_lines
from peft_daemon.next_edit.moment import Moment, of_history
from peft_daemon.next_edit.places import places
from peft_evaluation.edit_benchmark.scenarios import EditScenario, ScenarioKind


class EditScores(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured of one suggestion, or of none."""

    shown: bool
    exact: bool = False
    """The document after it is the document after the answer; never where nothing is right."""
    of_commit: bool = False
    """It is the answer, or another change that the commit goes on with, whole or whole lines of it."""
    similarity: float = 0.0
    """Of the changed lines after it to those after the answer; 0 without a suggestion or an answer."""
    quiet: bool | None = None
    """Where nothing is right: nothing was suggested, or only text at the cursor within a half-typed word."""
    reversal: float = 0.0
    """Share of the suggestion's change that takes back what the history did."""

    @property
    def false(self) -> bool:
        """Whether something was suggested that is not what is right."""
        return self.shown and not self.of_commit and not self.quiet


def scores(scenario: EditScenario, change: LineChange | None) -> EditScores:
    """Return the scores of a suggestion. Raises ValueError if its old lines are not those of the document."""
    silent = scenario.kind is not ScenarioKind.ANSWER
    if change is None:
        return EditScores(shown=False, quiet=True if silent else None)
    change.apply(scenario.lines)
    if scenario.answer is None:
        finishes = scenario.kind is ScenarioKind.HALF_WORD and is_insertion_at(change, scenario.line, scenario.column)
        return EditScores(shown=True, quiet=finishes, reversal=reversal(scenario, change))
    exact = is_exact(scenario.lines, change, scenario.answer)
    return EditScores(
        shown=True,
        exact=exact,
        of_commit=exact or leads_to(scenario.lines, change, scenario.after),
        similarity=similarity(scenario.lines, change, scenario.answer),
        reversal=reversal(scenario, change),
    )


def is_exact(lines: Lines, change: LineChange, answer: LineChange) -> bool:
    """Whether two changes make the same document, apart from white space at the ends of its lines."""
    one, other = change.apply(lines), answer.apply(lines)
    return len(one) == len(other) and all(a.rstrip() == b.rstrip() for a, b in zip(one, other, strict=True))


def leads_to(lines: Lines, change: LineChange, after: Lines) -> bool:
    """Whether a change is whole lines of what leads from a document to a later one, white space at line ends aside."""
    now, then, end = ([each.rstrip() for each in text] for text in (lines, change.apply(lines), after))
    made = Indel.distance(now, then)
    return made > 0 and Indel.distance(now, end) - Indel.distance(then, end) == made


def similarity(lines: Lines, change: LineChange, answer: LineChange) -> float:
    """Return how similar the lines that either change touches are after both, from 0 to 1."""
    first, end = min(change.start, answer.start), max(change.old_end, answer.old_end)
    return Levenshtein.normalized_similarity(*(_part(lines, each, first, end) for each in (change, answer)))


def reversal(scenario: EditScenario, change: LineChange) -> float:
    """Return which share of a change leads back to the text before the history, from 0 to 1.

    Of the distances between the text before the history, the text as it is and the text after the change, the share is
    1 where the change goes all or a part of the way back, and 0 where it leads away in another direction.
    """
    touched = [each.change for each in scenario.history if _touch(each.change, change)]
    first = min([change.start, *(each.start for each in touched)])
    end = max([change.old_end, *(each.new_end for each in touched)])
    now = scenario.lines[first:end]
    before = now
    for each in sorted(touched, key=lambda one: -one.start):
        before = LineChange(each.start - first, each.new, each.old).apply(before)
    after = LineChange(change.start - first, change.old, change.new).apply(now)
    made = Levenshtein.distance(_text(now), _text(after))
    if not made or before == now:
        return 0.0
    back = Levenshtein.distance(_text(before), _text(now)) - Levenshtein.distance(_text(before), _text(after))
    return (back + made) / (2 * made)


def is_insertion_at(change: LineChange, line: int, column: int) -> bool:
    """Whether a change only inserts text at a place."""
    if change.start != line or len(change.old) != 1:
        return False
    old, new = change.old[0], "\n".join(change.new)
    return len(new) >= len(old) and new.startswith(old[:column]) and new.endswith(old[column:])


def insertion(lines: Sequence[str], line: int, column: int, text: str, *, over: int = 0) -> LineChange | None:
    """Return the change that a text makes at a place, over the characters behind it; None if it changes nothing."""
    old = lines[line]
    new = (old[:column] + text + old[column + over :]).split("\n")
    change = LineChange(line, (old,), tuple(new))
    return None if change.old == change.new else change


def place_found(scenario: EditScenario) -> bool | None:
    """Whether the answer lies in one of the windows that are looked at; None without an answer."""
    answer = scenario.answer
    if answer is None:
        return None
    end = max(answer.old_end, answer.start + 1)
    return any(
        each.start <= answer.start and min(end, len(scenario.lines)) <= each.end for each in places(moment_of(scenario))
    )


def is_distant(scenario: EditScenario, change: LineChange) -> bool:
    """Whether a change does not begin in the window around the cursor."""
    windows = places(moment_of(scenario))[:1]
    return not any(each.start <= change.start < each.end for each in windows)


def moment_of(scenario: EditScenario) -> Moment:
    """Return a scenario as the daemon looks at it."""
    return of_history(
        scenario.path,
        scenario.language,
        scenario.lines,
        scenario.history,
        line=scenario.line,
        column=scenario.column,
    )


def _touch(one: LineChange, other: LineChange) -> bool:
    """Whether the new lines of a change made before meet the old lines of another, or lie at its edge."""
    return one.start <= other.old_end and other.start <= one.new_end


def _part(lines: Lines, change: LineChange, first: int, end: int) -> str:
    """Return the lines from ``first`` to before ``end`` after a change in them."""
    return _text(LineChange(change.start - first, change.old, change.new).apply(lines[first:end]))


def _text(lines: Lines) -> str:
    return join_lines([each.rstrip() for each in lines])
