"""The state of llama.vscode's policy: the ring of context chunks, the cache of answers, the lines around the cursor.

The ring has chunks of files that the person looked at; a chunk is added only while nobody types. It is re-created from
extra-context.ts without chunks of copied text, which do not occur in traces.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

MAX_CHUNKS = 16
CHUNK_LINES = 64
SCOPE_LINES = 1024
MAX_QUEUED = 16
FAR_LINES = 32
"""Chunks are picked around the cursor when it has moved this far."""
QUIET_S = 3.0
"""A chunk is added only when the last request was sent this long ago."""
UPDATE_S = 1.0
MAX_SIMILARITY = 0.9
MIN_CHUNK_LINES = 3


@dataclass(frozen=True)
class RingChunk:
    """Some lines of a file."""

    file: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The text that is sent."""
        return "\n".join(self.lines) + "\n"

    def similarity(self, other: RingChunk) -> float:
        """Return the Jaccard similarity of the lines."""
        one, two = set(self.lines), set(other.lines)
        return len(one & two) / len(one | two)


@dataclass
class ContextRing:
    """The chunks that are sent with requests, in the order they were added, and those that wait to be added."""

    random: Random
    chunks: list[RingChunk] = field(default_factory=list)
    queued: list[RingChunk] = field(default_factory=list)
    _last_line: int = -9999

    def around_answer(self, file: str, around: CursorLines, prefix_lines: int, suffix_lines: int) -> None:
        """After an answer: if the cursor has moved far, pick chunks outside of the lines that the request had."""
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
        """Pick a chunk around the cursor; called when a file is left, shown or saved."""
        half = CHUNK_LINES // 2
        self.pick(file, around.lines[max(0, around.line - half) : around.line + half + 1], evict=True)

    def pick(self, file: str, lines: Sequence[str], *, evict: bool) -> None:
        """Queue a chunk of some lines; with ``evict`` only a new one, which replaces very similar ones."""
        if len(lines) < MIN_CHUNK_LINES:
            return
        if len(lines) + 1 >= CHUNK_LINES:
            half = CHUNK_LINES // 2
            begin = int(self.random.random() * max(0, len(lines) - half + 1))
            lines = lines[begin : begin + half]
        chunk = RingChunk(file, tuple(lines))
        if evict:
            if any(other.text == chunk.text for other in (*self.chunks, *self.queued)):
                return
            self.chunks = [other for other in self.chunks if other.similarity(chunk) <= MAX_SIMILARITY]
            self.queued = [other for other in self.queued if other.similarity(chunk) <= MAX_SIMILARITY]
        if len(self.queued) >= MAX_QUEUED:
            self.queued.pop(0)
        self.queued.append(chunk)

    def add_queued(self) -> bool:
        """Move one queued chunk into the ring; return whether there was one."""
        if not self.queued:
            return False
        self.chunks.append(self.queued.pop(0))
        del self.chunks[:-MAX_CHUNKS]
        return True


# The cache of answers, re-created from lru-cache.ts and completion.ts (getCachedCompletion).


@dataclass(frozen=True)
class InfillKey:
    """The text around the cursor that an answer was given for."""

    prefix: str
    """The lines above the cursor's line."""
    suffix: str
    """The rest of the cursor's line and the lines below."""
    prompt: str
    """The cursor's line up to the cursor."""


class InfillCache:
    """A cache of answers, each a list of alternatives; the least recently used answer is dropped first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._answers: OrderedDict[InfillKey, tuple[str, ...]] = OrderedDict()

    def __contains__(self, key: InfillKey) -> bool:
        return key in self._answers

    def get(self, key: InfillKey) -> tuple[str, ...] | None:
        """Return the answer, or the rest of one that was given for a shorter beginning of the line.

        Alternatives that do not match what was typed since are left out. None if there is no answer.
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


# A document's lines around the cursor.


@dataclass(frozen=True)
class CursorLines:
    """The lines of a document, and the cursor's position."""

    lines: tuple[str, ...]
    """The lines without line ends."""
    line: int
    column: int

    @classmethod
    def of(cls, text: str, cursor: int) -> CursorLines:
        """Make it from a text and the cursor's offset."""
        begin = text.rfind("\n", 0, cursor) + 1
        return cls(tuple(text.split("\n")), text.count("\n", 0, cursor), cursor - begin)

    @property
    def before(self) -> str:
        """The cursor's line up to the cursor."""
        return self.lines[self.line][: self.column]

    @property
    def behind(self) -> str:
        """The cursor's line from the cursor on."""
        return self.lines[self.line][self.column :]

    def above(self, count: int) -> tuple[str, ...]:
        """Return up to ``count`` lines above the cursor's line."""
        return self.lines[max(0, self.line - count) : self.line]

    def below(self, count: int) -> tuple[str, ...]:
        """Return up to ``count`` lines below the cursor's line."""
        return self.lines[self.line + 1 : self.line + 1 + count]


# Suggestions that are not shown, re-created from completion.ts (shouldDiscardSuggestion).


def is_discarded(lines: Sequence[str], around: CursorLines) -> bool:
    """Return whether suggested lines are empty, or the same as the text after the cursor."""
    if not lines or (len(lines) == 1 and not lines[0].strip()):
        return True
    below = around.lines[around.line + 1 :]
    return bool(below) and (_repeats_following(lines, below, around) or _repeats_next_line(lines, below, around))


def _repeats_following(lines: Sequence[str], below: Sequence[str], around: CursorLines) -> bool:
    """Return whether the suggestion repeats the rest of the cursor's line and the lines below."""
    if len(lines) == 1:
        return lines[0] == around.behind
    return lines[0].strip() in ("", around.behind.strip()) and _begins(below, lines[1:])


def _repeats_next_line(lines: Sequence[str], below: Sequence[str], around: CursorLines) -> bool:
    """Return whether the suggestion would repeat the next non-empty line and the lines below that."""
    first = next((index for index, line in enumerate(below) if line.strip()), None)
    if first is None or around.before + lines[0] != below[first]:
        return False
    following = below[first + 1 :]
    if len(lines) == 2:
        return bool(following) and following[0].startswith(lines[1])
    return _begins(following, lines[1:])


def _begins(lines: Sequence[str], beginning: Sequence[str]) -> bool:
    return tuple(lines[: len(beginning)]) == tuple(beginning)
