"""Scenarios: moments of repositories' newest commits at which one edit is right, and as many at which none is.

An edit is right where a commit goes on with one that follows from those before it. None is right where a commit is
finished; where the cursor rests in another function, of which the changes say nothing; and within a word that is
being typed, which is a completion's to finish. All is drawn by a seed.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from enum import StrEnum
from itertools import islice
from pathlib import Path
from random import Random

import msgspec

from peft_core.code.commit_edits import (
    MAX_HISTORY_LINES,
    ChangedFile,
    EditCommit,
    EditStep,
    changed_words,
    edit_commits,
    edit_steps,
    follows,
    line_after,
)
from peft_core.code.edits import EditedPlace, History, LineChange, Lines, join_lines, with_change
from peft_core.code.structure import parse_functions
from peft_core.errors import InvalidInput
from peft_core.next_edit_types import LONGEST_PAST_EDIT, MOST_PAST_EDITS

NEAR_LINES = 10
"""An answer so far from the cursor is near."""
UNRELATED_LINES = 20
"""An unrelated place is farther than that from every change."""
MIN_CUT_WORD = 5
"""Characters of a word that is cut in its middle."""
MOST_OF_COMMIT = 2
"""Scenarios of either sort that are taken of one commit."""
MAX_CHARACTERS = 400_000
"""Larger documents are left out."""
_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
_WORD = re.compile(r"[A-Za-z_]\w*")


class ScenarioKind(StrEnum):
    """What is right in a scenario, and why."""

    ANSWER = "answer"
    """The edit that the commit went on with."""
    FINISHED = "finished"
    """Nothing: the last change of the file is made."""
    UNRELATED = "unrelated"
    """Nothing: the cursor rests in another function."""
    HALF_WORD = "half_word"
    """Nothing but the rest of the word that is being typed."""


class AnswerDistance(StrEnum):
    """How far the answer is from the cursor."""

    SAME_LINE = "same_line"
    """Another part of the line that was just changed."""
    NEAR = "near"
    """At most ``NEAR_LINES``."""
    FAR = "far"


SILENT_KINDS = (ScenarioKind.FINISHED, ScenarioKind.UNRELATED, ScenarioKind.HALF_WORD)
Stratum = AnswerDistance | ScenarioKind
"""A part of the scenarios that gets its share of them."""


@dataclass(frozen=True, kw_only=True)
class EditScenario:
    """A document in the middle of a change, and what is right there."""

    repository: str
    commit: str
    path: str
    language: str
    kind: ScenarioKind
    distance: AnswerDistance | None
    lines: Lines
    after: Lines
    """The document as the commit left it."""
    history: History
    line: int
    column: int
    answer: LineChange | None
    """None where nothing is right."""

    @property
    def id(self) -> str:
        """An id that the same scenario always has, and no other one of a run."""
        place = f"{self.path}\0{self.line}\0{self.column}\0{self.stratum}\0{len(self.history)}".encode()
        return f"{self.repository}-{self.commit[:10]}-{hashlib.sha256(place).hexdigest()[:8]}"

    @property
    def stratum(self) -> Stratum:
        """The part of the scenarios that it belongs to."""
        return self.distance or self.kind

    @property
    def before(self) -> Lines:
        """The document as it was before the history."""
        lines = self.lines
        for each in sorted((each.change for each in self.history), key=lambda change: -change.start):
            lines = each.inverse.apply(lines)
        return lines


@dataclass(frozen=True)
class EditAmount:
    """How much is drawn."""

    scenarios: int
    """Scenarios with an answer, and as many without."""
    commits: int
    """Newest commits of each repository that changed code, from which they are drawn."""


FULL, QUICK = EditAmount(220, 150), EditAmount(20, 40)


def make_scenarios(sources: Sequence[Path], amount: EditAmount, seed: int) -> tuple[EditScenario, ...]:
    """Return the scenarios, one with an answer and one without by turns; fewer than asked for where there are fewer.

    Raises InvalidInput for a source without commits that changed code, or two of one name; Unavailable without git.
    """
    names = [each.resolve().name for each in sources]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InvalidInput(f"two sources are named {twice[0]}", fix="Rename one of the folders")
    answers, silences = [], []
    for number, (name, source) in enumerate(zip(names, sources, strict=True)):
        found = _candidates(name, source, amount, Random(f"{seed} {name}"))  # noqa: S311  (has to be repeatable)
        if not found:
            raise InvalidInput(
                f"{source} has no commit that changed code in several places",
                why="next edits are measured on the history of a repository",
                fix="Give clones with their history: `git fetch --unshallow` completes one",
            )
        # Each repository begins with another part, so that few scenarios have something of each as well.
        answers.append(_drawn([found[part] for part in _rotated(tuple(AnswerDistance), number)]))
        silences.append(_drawn([found[part] for part in _rotated(SILENT_KINDS, number)]))
    pairs = zip(_by_turns(answers), _by_turns(silences), strict=False)
    return tuple(each for pair in islice(pairs, amount.scenarios) for each in pair)


def digest_of(scenarios: Sequence[EditScenario]) -> str:
    """Return the sha256 of scenarios with all that they show."""
    return hashlib.sha256(msgspec.json.encode(scenarios)).hexdigest()


def scenarios_of(repository: str, commit: EditCommit, random: Random) -> Iterator[EditScenario]:
    """Yield all scenarios with an answer of a commit, a cut word of each change, and one unrelated place."""
    resting = random.choice(commit.files)
    for file in commit.files:
        maker = _FileScenarios(repository, commit, file)
        for step in edit_steps(file, commit.at):
            if step.following is None:
                yield from maker.finished(step)
                if file is resting:
                    yield from maker.unrelated(step, random)
            else:
                yield from maker.answer(step, step.following)
                yield from maker.same_line(step, step.following)
                yield from maker.half_word(step, step.following, random)


@dataclass(frozen=True)
class _FileScenarios:
    repository: str
    commit: EditCommit
    file: ChangedFile

    def answer(self, step: EditStep, change: LineChange) -> Iterator[EditScenario]:
        """Yield the step if its next change follows from those before it."""
        if follows(step):
            line = line_after(step)
            distance = AnswerDistance.NEAR if lines_between(change, line) <= NEAR_LINES else AnswerDistance.FAR
            column = len(step.lines[line])
            kind = ScenarioKind.ANSWER
            yield from self._scenario(step.lines, step.history, line, column, kind, distance=distance, answer=change)

    def same_line(self, step: EditStep, change: LineChange) -> Iterator[EditScenario]:
        """Yield the moment within a line that was changed in several places, of which the first is made.

        The others have to follow from it or from the history.
        """
        if len(change.old) != 1 or len(change.new) != 1:
            return
        old, new = change.old[0], change.new[0]
        spans = _changed_spans(old, new)
        if len(spans) < 2:
            return
        first = spans[0]
        partial = new[: first.new_end] + old[first.old_end :]
        made = LineChange(change.start, (old,), (partial,))
        rest = LineChange(change.start, (partial,), (new,))
        if changed_words(rest) & (changed_words(made) | step.words) and partial != old:
            yield from self._within(
                step, made, first.new_end, ScenarioKind.ANSWER, distance=AnswerDistance.SAME_LINE, answer=rest
            )

    def half_word(self, step: EditStep, change: LineChange, random: Random) -> Iterator[EditScenario]:
        """Yield a moment within a word that the change brings; all of the change before it is typed."""
        cuts: list[tuple[LineChange, int]] = []
        if not change.old and len(change.new) <= MAX_HISTORY_LINES:
            for number, line in enumerate(change.new):
                for word in _WORD.finditer(line):
                    cuts += [
                        (LineChange(change.start, (), (*change.new[:number], line[:column])), column)
                        for column in _middle(word.start(), word.end(), random)
                    ]
        elif len(change.old) == len(change.new) == 1:
            old, new = change.old[0], change.new[0]
            known = set(_WORD.findall(old))
            for span in _changed_spans(old, new):
                for word in _WORD.finditer(new, span.new_start, span.new_end):
                    if word[0] not in known:
                        cuts += [
                            (LineChange(change.start, (old,), (new[:column] + old[span.old_end :],)), column)
                            for column in _middle(word.start(), word.end(), random)
                        ]
        if cuts:
            made, column = random.choice(cuts)
            yield from self._within(step, made, column, ScenarioKind.HALF_WORD)

    def finished(self, step: EditStep) -> Iterator[EditScenario]:
        """Yield the end of the work, with the cursor where it ended."""
        if step.history and step.lines:
            line = line_after(step)
            yield from self._scenario(step.lines, step.history, line, len(step.lines[line]), ScenarioKind.FINISHED)

    def unrelated(self, step: EditStep, random: Random) -> Iterator[EditScenario]:
        """Yield the end of the work, with the cursor in another function."""
        if step.history and (line := _unrelated_line(step, self.file.language, random)) is not None:
            yield from self._scenario(step.lines, step.history, line, len(step.lines[line]), ScenarioKind.UNRELATED)

    def _within(
        self,
        step: EditStep,
        made: LineChange,
        column: int,
        kind: ScenarioKind,
        *,
        distance: AnswerDistance | None = None,
        answer: LineChange | None = None,
    ) -> Iterator[EditScenario]:
        """Yield the state in which a part of the following change is made; the cursor is in its last line."""
        history = with_change(step.history, self.file.path, step.lines, made, float(self.commit.at))
        if any(each.is_blank for each in history):
            return
        line = made.new_end - 1
        yield from self._scenario(made.apply(step.lines), history, line, column, kind, distance=distance, answer=answer)

    def _scenario(
        self,
        lines: Lines,
        history: History,
        line: int,
        column: int,
        kind: ScenarioKind,
        *,
        distance: AnswerDistance | None = None,
        answer: LineChange | None = None,
    ) -> Iterator[EditScenario]:
        yield EditScenario(
            repository=self.repository,
            commit=self.commit.id,
            path=self.file.path,
            language=self.file.language,
            kind=kind,
            distance=distance,
            lines=lines,
            after=self.file.after,
            history=history,
            line=line,
            column=column,
            answer=answer,
        )


@dataclass(frozen=True)
class _ChangedSpan:
    old_start: int
    old_end: int
    new_start: int
    new_end: int


def _changed_spans(old: str, new: str) -> list[_ChangedSpan]:
    """Return the places where two lines differ, in characters; places with no word between them are one."""
    olds, news = _TOKEN.findall(old), _TOKEN.findall(new)
    found: list[_ChangedSpan] = []
    at_old = [0, *_ends(olds)]
    at_new = [0, *_ends(news)]
    for tag, old_start, old_end, new_start, new_end in SequenceMatcher(None, olds, news, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        span = _ChangedSpan(at_old[old_start], at_old[old_end], at_new[new_start], at_new[new_end])
        if found and not _WORD.search(new[found[-1].new_end : span.new_start]):
            span = _ChangedSpan(found[-1].old_start, span.old_end, found[-1].new_start, span.new_end)
            found.pop()
        found.append(span)
    return found


def _ends(tokens: Sequence[str]) -> Iterator[int]:
    at = 0
    for each in tokens:
        at += len(each)
        yield at


def _middle(start: int, end: int, random: Random) -> list[int]:
    """Return a place in the middle of a word; none for a short one."""
    return [random.randint(start + 2, end - 2)] if end - start >= MIN_CUT_WORD else []


def lines_between(change: LineChange, line: int) -> int:
    """Return how many lines a change is away from a line; 0 if it touches it."""
    return max(change.start - line, line - max(change.start, change.old_end - 1), 0)


def _unrelated_line(step: EditStep, language: str, random: Random) -> int | None:
    """Return a line of a function that is far from all changes and has none of their words."""
    text = join_lines(step.lines)
    if len(text) > MAX_CHARACTERS:
        return None
    structure = parse_functions(text, language)
    found: list[int] = []
    for function in structure.outermost:
        first = structure.text.row(function.span.start)
        last = structure.text.row(max(function.span.start, function.span.end - 1))
        near = range(first - UNRELATED_LINES, last + UNRELATED_LINES + 1)
        if any(
            each.change.start in near or max(each.change.start, each.change.new_end - 1) in near
            for each in step.history
        ):
            continue
        if any(each.change.start < near.start and near.stop <= each.change.new_end for each in step.history):
            continue
        if step.words.isdisjoint(_WORD.findall(text[function.span.start : function.span.end])):
            found += [at for at in range(first, min(last + 1, len(step.lines))) if step.lines[at].strip()]
    return random.choice(found) if found else None


def _candidates(
    name: str, source: Path, amount: EditAmount, random: Random
) -> defaultdict[Stratum, list[EditScenario]]:
    """Return scenarios of the newest commits by stratum, of each commit one of each, in random order."""
    found: defaultdict[Stratum, list[EditScenario]] = defaultdict(list)
    for commit in islice(edit_commits(source), amount.commits):
        of_commit: dict[Stratum, list[EditScenario]] = defaultdict(list)
        for each in scenarios_of(name, commit, random):
            of_commit[each.stratum].append(each)
        for stratum in sorted(of_commit):
            drawn = as_sent(random.choice(of_commit[stratum]))
            if drawn.history and sum(map(len, drawn.lines)) <= MAX_CHARACTERS:
                found[stratum].append(drawn)
    for stratum in sorted(found):
        random.shuffle(found[stratum])
    return found


def as_sent(scenario: EditScenario) -> EditScenario:
    """Return the scenario with as much of its history as a request may have."""
    history: list[EditedPlace] = []
    for each in reversed(scenario.history):
        if len(history) == MOST_PAST_EDITS:
            break
        if max(len(join_lines(each.change.old)), len(join_lines(each.change.new))) <= LONGEST_PAST_EDIT:
            history.append(each)
    return replace(scenario, history=tuple(reversed(history)))


def _rotated(parts: Sequence[Stratum], by: int) -> Sequence[Stratum]:
    return [*parts[by % len(parts) :], *parts[: by % len(parts)]]


def _drawn(parts: Sequence[Sequence[EditScenario]]) -> Iterator[EditScenario]:
    """Yield scenarios of each part by turns, of no commit more than ``MOST_OF_COMMIT``."""
    taken = Counter[str]()
    for each in _by_turns([iter(part) for part in parts]):
        if taken[each.commit] < MOST_OF_COMMIT:
            taken[each.commit] += 1
            yield each


def _by_turns(sequences: Sequence[Iterator[EditScenario]]) -> Iterator[EditScenario]:
    """Yield one scenario of each sequence after the other, until all are at their ends."""
    left = list(sequences)
    while left:
        for each in tuple(left):
            if (found := next(each, None)) is None:
                left.remove(each)
            else:
                yield found
