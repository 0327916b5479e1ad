"""Examples of one commit: windows in the middle of its changes, with the lines that belong there next.

Two of three examples go on with a change that follows from those before it. In the others nothing is to be changed:
the work is finished, the cursor rests in an unrelated place, or the next change is in another of the places that are
looked at. So a model learns to copy, and to change only what follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

from peft_core.code.commit_edits import ChangedFile, EditCommit, EditStep, edit_steps, follows, line_after, words_of
from peft_core.code.edits import LineChange
from peft_daemon.next_edit.moment import Moment, of_history
from peft_daemon.next_edit.places import LINES_ABOVE, LINES_BELOW, Place, places
from peft_tuning.data.examples import EditExample

MAX_ANSWERS = 3
"""Examples of one commit that go on with a change: a large commit would teach its own kind of change only."""
SILENT_SHARE = 1 / 3
"""Share of the examples in which nothing is to be changed."""
MAX_DOCUMENT_LINES = 4_000
"""Longer documents are left out: they are held whole."""
MAX_SHIFT = 3
"""Lines by which a window is moved, so that the change is not always at the same line of it."""
SHIFTED_SHARE = 0.5
UNRELATED_LINES = 20
"""Lines between an unrelated place and every change."""
UNRELATED_TRIES = 8


class WindowKind(StrEnum):
    """What is right in an example, and why."""

    ANSWER = "answer"
    """The change that the commit went on with."""
    FINISHED = "finished"
    """Nothing: the last change of the file is made."""
    UNRELATED = "unrelated"
    """Nothing: the cursor rests where nothing has to do with the changes."""
    ELSEWHERE = "elsewhere"
    """Nothing: what follows is outside of this window."""


@dataclass(frozen=True)
class CommitWindows:
    """The examples of a commit, and how many changes that follow lie in no place that is looked at."""

    examples: tuple[EditExample, ...]
    outside: int


def commit_windows(origin: str, commit: EditCommit, files: Sequence[ChangedFile], random: Random) -> CommitWindows:
    """Return at most ``MAX_ANSWERS`` examples with a change of a commit's ``files``, and half as many without.

    ``origin`` names the repository in the ids of the examples.
    """
    answers: list[EditExample] = []
    silent: dict[WindowKind, list[EditExample]] = {}
    outside = 0
    for file in files:
        if max(len(file.before), len(file.after)) > MAX_DOCUMENT_LINES:
            continue
        steps = tuple(edit_steps(file, commit.at))
        for number, step in enumerate(steps):
            if not step.history or not step.lines:
                continue
            moment = _moment(file, step)
            name = f"{origin}@{commit.id[:12]}:{file.path}:{number}"
            if step.following is None:
                for kind, resting, place in _silent_at_the_end(moment, step, random):
                    silent.setdefault(kind, []).append(_example(f"{name}:{kind}", resting, place))
            elif follows(step):
                found = _answered(moment, step.following, random)
                outside += found is None
                if found is not None:
                    answers.append(_example(f"{name}:{WindowKind.ANSWER}", moment, found, step.following))
                left = _without(moment, [each.following for each in steps[number:] if each.following is not None])
                if left:
                    other = _example(f"{name}:{WindowKind.ELSEWHERE}", moment, random.choice(left))
                    silent.setdefault(WindowKind.ELSEWHERE, []).append(other)
    chosen = random.sample(answers, min(MAX_ANSWERS, len(answers)))
    wanted = len(chosen) * SILENT_SHARE / (1 - SILENT_SHARE)
    count = int(wanted) + (random.random() < wanted % 1)
    kinds = random.sample(sorted(silent), len(silent))
    quiet = [random.choice(silent[kind]) for kind in kinds[:count]]
    return CommitWindows((*chosen, *quiet), outside)


def _moment(file: ChangedFile, step: EditStep) -> Moment:
    line = line_after(step)
    return of_history(file.path, file.language, step.lines, step.history, line=line, column=len(step.lines[line]))


def _example(id_: str, moment: Moment, place: Place, change: LineChange | None = None) -> EditExample:
    answer = moment.lines[place.start : place.end]
    if change is not None:
        answer = LineChange(change.start - place.start, change.old, change.new).apply(answer)
    return EditExample(id=id_, moment=moment, place=place, answer=answer)


def _answered(moment: Moment, change: LineChange, random: Random) -> Place | None:
    """Return the window that holds a change, of those that are looked at; half of them are moved a little."""
    found = next((each for each in places(moment) if each.start <= change.start and change.old_end <= each.end), None)
    if found is None or random.random() >= SHIFTED_SHARE:
        return found
    length = found.end - found.start
    first = max(0, change.old_end - length, found.start - MAX_SHIFT)
    last = min(change.start, len(moment.lines) - length, found.start + MAX_SHIFT)
    start = random.randint(first, last) if first <= last else found.start
    return Place(start, start + length, found.why)


def _without(moment: Moment, following: Sequence[LineChange]) -> list[Place]:
    """Return the places that none of the changes touches which the commit goes on with, the next one first.

    The start of each is a line of the document in which those before it are made.
    """
    touched, growth = [], 0
    for each in following:
        touched.append((each.start - growth, each.old_end - growth))
        growth += each.growth
    return [
        place
        for place in places(moment)
        if not any(start <= place.end and place.start <= end for start, end in touched)
    ]


def _silent_at_the_end(moment: Moment, step: EditStep, random: Random) -> Iterator[tuple[WindowKind, Moment, Place]]:
    """Yield a place of those that are looked at when all is made, and an unrelated one."""
    if looked_at := places(moment):
        yield WindowKind.FINISHED, moment, random.choice(looked_at)
    lines = moment.lines
    for _ in range(UNRELATED_TRIES):
        line = random.randrange(len(lines))
        place = Place(max(0, line - LINES_ABOVE), min(len(lines), line + LINES_BELOW + 1), "around the cursor")
        first, last = place.start - UNRELATED_LINES, place.end + UNRELATED_LINES
        if any(each.change.start < last and first < each.change.new_end for each in step.history):
            continue
        if lines[line].strip() and step.words.isdisjoint(words_of(lines[place.start : place.end])):
            yield WindowKind.UNRELATED, replace(moment, line=line, column=len(lines[line])), place
            return
