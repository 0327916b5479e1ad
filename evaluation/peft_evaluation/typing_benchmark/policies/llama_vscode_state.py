"""llama.vscode's ring of extra context: chunks of what the person looked at, a new one only while nobody types.

Re-created from extra-context.ts. Left out: chunks of copied text, which no trace has.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

CHUNKS = 16
CHUNK_LINES = 64
SCOPE_LINES = 1024
QUEUE = 16
FAR_LINES = 32
"""After a cursor has moved so far, chunks are picked around it."""
QUIET_S = 3.0
"""No chunk is taken in until so long after the last request began."""
UPDATE_S = 1.0
ALIKE = 0.9
FEWEST_LINES = 3


@dataclass(frozen=True)
class RingChunk:
    """Some lines of a file."""

    file: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """As it is sent."""
        return "\n".join(self.lines) + "\n"

    def likeness(self, other: RingChunk) -> float:
        """Jaccard's similarity of the lines."""
        one, two = set(self.lines), set(other.lines)
        return len(one & two) / len(one | two)


@dataclass
class ContextRing:
    """The chunks that are sent, in the order they were taken in, and those that wait."""

    random: Random
    chunks: list[RingChunk] = field(default_factory=list)
    queued: list[RingChunk] = field(default_factory=list)
    _last_line: int = -9999

    def around_answer(self, file: str, around: CursorLines, prefix_lines: int, suffix_lines: int) -> None:
        """After an answer: what lies beyond the lines the request had, if the cursor has moved far."""
        if abs(around.line - self._last_line) <= FAR_LINES:
            return
        last = len(around.lines) - 1
        above = around.lines[max(0, around.line - SCOPE_LINES) : max(0, around.line - prefix_lines) + 1]
        begin = min(last, around.line + suffix_lines)
        below = around.lines[begin : min(last, begin + CHUNK_LINES) + 1]
        self.pick(file, above, evict=False)
        self.pick(file, below, evict=False)
        self._last_line = around.line

    def around_cursor(self, file: str, around: CursorLines) -> None:
        """When a file is left, shown or saved."""
        half = CHUNK_LINES // 2
        self.pick(file, around.lines[max(0, around.line - half) : around.line + half + 1], evict=True)

    def pick(self, file: str, lines: Sequence[str], *, evict: bool) -> None:
        """Queue a chunk of some lines; ``evict``: not one that is there, and those that are much like it go."""
        if len(lines) < FEWEST_LINES:
            return
        if len(lines) + 1 >= CHUNK_LINES:
            half = CHUNK_LINES // 2
            begin = int(self.random.random() * max(0, len(lines) - half + 1))
            lines = lines[begin : begin + half]
        chunk = RingChunk(file, tuple(lines))
        if evict:
            if any(other.text == chunk.text for other in (*self.chunks, *self.queued)):
                return
            self.chunks = [other for other in self.chunks if other.likeness(chunk) <= ALIKE]
            self.queued = [other for other in self.queued if other.likeness(chunk) <= ALIKE]
        if len(self.queued) >= QUEUE:
            self.queued.pop(0)
        self.queued.append(chunk)

    def take_in(self) -> bool:
        """Move one queued chunk into the ring; whether there was one."""
        if not self.queued:
            return False
        self.chunks.append(self.queued.pop(0))
        del self.chunks[:-CHUNKS]
        return True


# llama.vscode's cache of answers: the least recently used goes, and a look-up also tries what was typed less of.
#
# Re-created from lru-cache.ts and completion.ts (getCachedCompletion).


@dataclass(frozen=True)
class InfillKey:
    """What an answer was given for."""

    prefix: str
    """The lines above the cursor's."""
    suffix: str
    """The rest of its line and the lines below."""
    prompt: str
    """The line up to the cursor."""


class InfillCache:
    """Answers by what was asked; each is a list of alternatives. The least recently used answer goes first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._answers: OrderedDict[InfillKey, tuple[str, ...]] = OrderedDict()

    def __contains__(self, key: InfillKey) -> bool:
        return key in self._answers

    def get(self, key: InfillKey) -> tuple[str, ...] | None:
        """Return the answer, or what remains of one given for a shorter beginning of the line.

        Only alternatives that go on as the line was typed remain.
        """
        for length in range(len(key.prompt), -1, -1):
            typed = key.prompt[length:]
            earlier = InfillKey(key.prefix, key.suffix, key.prompt[:length])
            if earlier not in self._answers:
                continue
            self._answers.move_to_end(earlier)
            answer = self._answers[earlier]
            remaining = tuple(text[len(typed) :] for text in answer if text.startswith(typed))
            if not typed or remaining:
                return remaining
        return None

    def put(self, key: InfillKey, answer: Sequence[str]) -> None:
        """Keep an answer."""
        self._answers[key] = tuple(answer)
        self._answers.move_to_end(key)
        if len(self._answers) > self._capacity:
            self._answers.popitem(last=False)


# A document's lines around the cursor, as the re-created policies cut them.


@dataclass(frozen=True)
class CursorLines:
    """The lines of a document and the cursor among them."""

    lines: tuple[str, ...]
    """Without their ends."""
    line: int
    column: int

    @classmethod
    def of(cls, text: str, cursor: int) -> CursorLines:
        """From a text and an offset in it."""
        begin = text.rfind("\n", 0, cursor) + 1
        return cls(tuple(text.split("\n")), text.count("\n", 0, cursor), cursor - begin)

    @property
    def before(self) -> str:
        """The cursor's line up to it."""
        return self.lines[self.line][: self.column]

    @property
    def behind(self) -> str:
        """The cursor's line from it on."""
        return self.lines[self.line][self.column :]

    def above(self, count: int) -> tuple[str, ...]:
        """So many lines above the cursor's, or what there is."""
        return self.lines[max(0, self.line - count) : self.line]

    def below(self, count: int) -> tuple[str, ...]:
        """So many lines below the cursor's, or what there is."""
        return self.lines[self.line + 1 : self.line + 1 + count]


# When llama.vscode throws a suggestion away: it is empty, or says what stands there already.
#
# Re-created from completion.ts (shouldDiscardSuggestion).


def is_discarded(lines: Sequence[str], around: CursorLines) -> bool:
    """Whether suggested lines are not worth showing."""
    if not lines or (len(lines) == 1 and not lines[0].strip()):
        return True
    below = around.lines[around.line + 1 :]
    return bool(below) and (_what_follows(lines, below, around) or _next_line(lines, below, around))


def _what_follows(lines: Sequence[str], below: Sequence[str], around: CursorLines) -> bool:
    """The rest of the cursor's line once more, and then the lines below it."""
    if len(lines) == 1:
        return lines[0] == around.behind
    return lines[0].strip() in ("", around.behind.strip()) and _begins(below, lines[1:])


def _next_line(lines: Sequence[str], below: Sequence[str], around: CursorLines) -> bool:
    """The cursor's line would become the next one that is not empty, and what comes after that as well."""
    first = next((index for index, line in enumerate(below) if line.strip()), None)
    if first is None or around.before + lines[0] != below[first]:
        return False
    following = below[first + 1 :]
    if len(lines) == 2:
        return bool(following) and following[0].startswith(lines[1])
    return _begins(following, lines[1:])


def _begins(lines: Sequence[str], wanted: Sequence[str]) -> bool:
    return tuple(lines[: len(wanted)]) == tuple(wanted)
