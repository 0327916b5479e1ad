"""Turn finished code into the edits with which a person types it in an editor, key by key.

The editor does what editors do for Python: Enter keeps the indentation, and adds a level after ``:``. An opening
bracket gets its closing bracket if that is on the same line, and typing the closing bracket later overwrites it. Quotes
and brackets over several lines are typed by hand.
"""

from __future__ import annotations

import io
import math
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from random import Random

from peft_core.code.document import lines_of
from peft_evaluation.typing_benchmark.traces import AHEAD, TraceAction, TraceEdit, TraceEvent

STEP = 4
"""Columns of one level of indentation."""
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_MISTAKES = "etaoinsrhldcumfpgwybvkxjqz"


@dataclass(frozen=True)
class TypingManner:
    """Probabilities of what a person does besides typing."""

    mistake: float = 0.04
    """Per word: wrong characters are typed first, and deleted."""
    retype: float = 0.03
    """Per word: it is deleted and typed again."""
    undo: float = 0.02
    """Per word: it is undone and typed again."""
    accept: float = 0.12
    """Per line: after a few characters the rest of the line is inserted, like an accepted suggestion."""
    think: float = 0.1
    """Per line: there is a longer pause before it."""
    detour: str = ""
    """``mistake``, ``retype`` or ``undo``: this happens in any case, at the first word that is long enough."""


def bracket_pairs(source: str) -> Mapping[int, int]:
    """Return the offsets of closing brackets by those of their opening ones, for pairs on one line outside of strings.

    Raises SyntaxError or tokenize.TokenError for text that is not Python.
    """
    starts = [0]
    for line in lines_of(source):
        starts.append(starts[-1] + len(line))
    found: dict[int, int] = {}
    open_: list[tuple[str, int, int]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.OP:
            continue
        offset = starts[token.start[0] - 1] + token.start[1]
        if token.string in _CLOSING:
            open_.append((token.string, token.start[0], offset))
        elif open_ and _CLOSING[open_[-1][0]] == token.string:
            _, line_number, opened = open_.pop()
            if line_number == token.start[0]:
                found[opened] = offset
    return found


@dataclass
class KeystrokeWriter:
    """Types parts of one file, and yields the events.

    The cursor has two offsets: ``cursor`` in the file's current text, and ``_at`` in the original.
    """

    name: str
    original: str
    text: str
    """The file's current text."""
    random: Random
    manner: TypingManner = TypingManner()
    place: int = 0
    """Number of the line being written; see ``TraceEvent.place``."""
    cursor: int = 0
    done: set[str] = field(default_factory=set)
    """The kinds of editing so far."""
    _at: int = 0
    _closers: list[int] = field(default_factory=list)
    """Offsets in the original of closing brackets that the editor inserted after the cursor, the nearest last."""
    _pairs: Mapping[int, int] = field(default_factory=dict)
    _end: int = 0
    """Offset in the original where the part being written ends."""

    def __post_init__(self) -> None:
        self._pairs = bracket_pairs(self.original)

    def write(self, start: int, end: int, cursor: int) -> Iterator[TraceEvent]:
        """Type ``original[start:end]`` at the offset ``cursor`` of the text, after a jump to it."""
        self.cursor, self._at, self._end, self._closers = cursor, start, end, []
        self.place += 1
        yield self._event(TraceAction.JUMP, LOOK, None)
        while self._at < end:
            if self.original[self._at] == "\n":
                yield from self._new_line(end)
            else:
                yield from self._word(end)

    def event(self, kind: TraceAction, pause: TypingPause) -> TraceEvent:
        """Return an event without an edit."""
        return self._event(kind, pause, None)

    def _new_line(self, end: int) -> Iterator[TraceEvent]:
        self.place += 1
        if self.random.random() < self.manner.think:
            self.done.add("pause")
            yield self._event(TraceAction.PAUSE, READ, None)
        line = self._line()
        begin = self.cursor - len(line)
        indent = line[: len(line) - len(line.lstrip())]
        deeper = " " * STEP if line.rstrip().endswith((":", "(", "[", "{")) else ""
        # The editor removes its indentation from an empty line when the cursor leaves the line.
        start = begin if line.strip() == "" else self.cursor
        added = "\n" + indent + deeper
        self._at += 1
        self.cursor = start + len(added)
        wanted = self._indentation(end)
        edit = TraceEdit(start, begin + len(line), added)
        if self._at < end and self.original[self._at] == "\n":
            yield self._typed(edit, LINE_START)  # an empty line: the next Enter clears it
            return
        if indent + deeper == wanted:
            self._at += len(wanted)
        yield self._typed(edit, LINE_START, aligned=indent + deeper == wanted)
        yield from self._indent(indent + deeper, wanted, end)
        self.done.add("lines in order")

    def _indentation(self, end: int) -> str:
        rest = self.original[self._at : end]
        return rest[: len(rest) - len(rest.lstrip(" \t"))]

    def _indent(self, there: str, wanted: str, end: int) -> Iterator[TraceEvent]:
        """Change the automatic indentation ``there`` to the original's with Backspace or Tab."""
        if there == wanted:
            return
        keep = len(wanted) if wanted == there[: len(wanted)] else 0
        while len(there) > keep:
            step = max(keep, (len(there) - 1) // STEP * STEP)
            edit = TraceEdit(self.cursor - (len(there) - step), self.cursor, "")
            self.cursor, there = edit.start, there[:step]
            self._at += len(wanted) if there == wanted else 0
            yield self._typed(edit, SAME_KEY, kind=TraceAction.DELETE, aligned=there == wanted)
        while len(there) < len(wanted):
            more = wanted[len(there) : (len(there) // STEP + 1) * STEP]
            edit = TraceEdit(self.cursor, self.cursor, more)
            self.cursor, there = self.cursor + len(more), there + more
            self._at += len(wanted) if there == wanted else 0
            yield self._typed(edit, SAME_KEY, aligned=there == wanted)

    def _word(self, end: int) -> Iterator[TraceEvent]:
        """Type the next word, sometimes with a detour; or insert the rest of the line at once."""
        length = self._word_length(end)
        rest = self.original[self._at : end].partition("\n")[0]
        begun = self._line().strip()
        drawn = self.random.random()
        if len(begun) >= 3 and len(rest) >= 6 and drawn < self.manner.accept / max(1, len(rest) / 6):
            yield self._accept(rest)
            return
        detour = ""
        if self.original[self._at : self._at + length].isidentifier() and length >= 3:
            detour = self._detour()
        if detour == "mistake":
            yield from self._mistake()
        yield from self._characters(length)
        if detour == "retype":
            yield from self._retype(length)
        elif detour == "undo":
            yield from self._undo(length)

    def _detour(self) -> str:
        """Return the detour at a word; empty for none."""
        if self.manner.detour:
            wanted, self.manner = self.manner.detour, replace(self.manner, detour="")
            return wanted
        chances = {"mistake": self.manner.mistake, "retype": self.manner.retype, "undo": self.manner.undo}
        (found,) = self.random.choices([*chances, ""], [*chances.values(), 1 - sum(chances.values())])
        return found

    def _word_length(self, end: int) -> int:
        """Return the length of the next identifier or number, or 1 for another character."""
        after = self._at
        while after < end and (self.original[after].isalnum() or self.original[after] == "_"):
            after += 1
        return max(1, after - self._at)

    def _characters(self, count: int) -> Iterator[TraceEvent]:
        for number in range(count):
            yield self._character(IN_WORD if number else WORD_START)

    def _character(self, pause: TypingPause) -> TraceEvent:
        character, cursor = self.original[self._at], self.cursor
        if self._closers and self._closers[-1] == self._at:
            self._closers.pop()
            edit = TraceEdit(cursor, cursor + 1, character)  # overwrites the bracket that the editor inserted
        elif self._at in self._pairs and self._free_behind() and self._closes_inside():
            self._closers.append(self._pairs[self._at])
            edit = TraceEdit(cursor, cursor, character + _CLOSING[character])
        else:
            edit = TraceEdit(cursor, cursor, character)
        self._at += 1
        self.cursor += 1
        return self._typed(edit, pause)

    def _free_behind(self) -> bool:
        """Return whether an editor would insert a closing bracket: white space or a closing bracket follows."""
        return self.text[self.cursor : self.cursor + 1] in ("", " ", "\n", ")", "]", "}")

    def _closes_inside(self) -> bool:
        return self._pairs[self._at] < self._end

    def _mistake(self) -> Iterator[TraceEvent]:
        """Type wrong characters and delete them."""
        self.done.add("mistake")
        right = self.original[self._at]
        wrong = [self.random.choice(_MISTAKES.replace(right.lower(), "")) for _ in range(self.random.randint(1, 3))]
        for character in wrong:
            edit = TraceEdit(self.cursor, self.cursor, character)
            self.cursor += 1
            yield self._typed(edit, IN_WORD, aligned=False)
        yield from self._backspaces(len(wrong), moves=False)

    def _backspaces(self, count: int, *, moves: bool) -> Iterator[TraceEvent]:
        """Delete characters; ``moves``: they were correct, so the offset in the original decreases as well."""
        for number in range(count):
            edit = TraceEdit(self.cursor - 1, self.cursor, "")
            self.cursor -= 1
            self._at -= moves
            aligned = moves or number == count - 1
            yield self._typed(edit, SAME_KEY if number else NOTICE, kind=TraceAction.DELETE, aligned=aligned)

    def _retype(self, length: int) -> Iterator[TraceEvent]:
        self.done.add("delete and retype")
        yield from self._backspaces(length, moves=True)
        yield from self._characters(length)

    def _undo(self, length: int) -> Iterator[TraceEvent]:
        self.done.add("undo")
        edit = TraceEdit(self.cursor - length, self.cursor, "")
        self.cursor -= length
        self._at -= length
        yield self._typed(edit, NOTICE, kind=TraceAction.UNDO)
        yield from self._characters(length)

    def _accept(self, rest: str) -> TraceEvent:
        """Insert the rest of the line in one edit, which replaces the brackets that the editor inserted."""
        self.done.add("accept")
        line_end = self._at + len(rest)
        over = sum(offset < line_end for offset in self._closers)
        self._closers = [offset for offset in self._closers if offset >= line_end]
        edit = TraceEdit(self.cursor, self.cursor + over, rest)
        self._at = line_end
        self.cursor += len(rest)
        return self._typed(edit, NOTICE, kind=TraceAction.ACCEPT)

    def _line(self) -> str:
        """Return the text of the cursor's line before the cursor."""
        return self.text[self.text.rfind("\n", 0, self.cursor) + 1 : self.cursor]

    def _typed(
        self, edit: TraceEdit, pause: TypingPause, *, kind: TraceAction = TraceAction.KEY, aligned: bool = True
    ) -> TraceEvent:
        self.text = edit.applied(self.text)
        return self._event(kind, pause, edit, aligned=aligned)

    def _event(
        self, kind: TraceAction, pause: TypingPause, edit: TraceEdit | None, *, aligned: bool = True
    ) -> TraceEvent:
        return TraceEvent(
            kind=kind,
            wait_s=pause.draw(self.random),
            file=self.name,
            edit=edit,
            cursor=self.cursor,
            truth=self.original[self._at : self._at + AHEAD] if aligned else None,
            place=self.place,
        )


# Pauses between two events: seconds, drawn from log-normal distributions.
#
# Inside a word: mean 239 ms, standard deviation 112 ms, the inter-key interval of 168,000 typists (Dhakal, Feit,
# Kristensson, Oulasvirta: Observations on Typing from 136 Million Keystrokes, CHI 2018). It is known that people type
# more slowly at the beginning of words and lines; the numbers for that are assumptions of this benchmark.

MIN_PAUSE_S = 0.05


@dataclass(frozen=True)
class TypingPause:
    """A log-normal distribution of pauses, given by its mean and standard deviation in seconds."""

    mean: float
    deviation: float

    def draw(self, random: Random) -> float:
        """Draw one pause, rounded to milliseconds."""
        variance = math.log(1 + (self.deviation / self.mean) ** 2)
        drawn = random.lognormvariate(math.log(self.mean) - variance / 2, math.sqrt(variance))
        return round(min(max(drawn, MIN_PAUSE_S), 4 * self.mean), 3)


IN_WORD = TypingPause(0.239, 0.112)
WORD_START = TypingPause(0.36, 0.2)
LINE_START = TypingPause(0.9, 0.6)
SAME_KEY = TypingPause(0.13, 0.04)
"""Before the same key again, e.g. several backspaces."""
NOTICE = TypingPause(0.6, 0.25)
"""Before correcting a mistake, accepting or undoing."""
LOOK = TypingPause(1.4, 0.5)
"""Before editing at another place."""
READ = TypingPause(2.2, 0.8)
"""For reading a file that was opened, or for thinking."""
