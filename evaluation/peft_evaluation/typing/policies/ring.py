"""llama.vscode's ring of extra context: chunks of what the person looked at, a new one only while nobody types.

Re-created from extra-context.ts. Left out: chunks of copied text, which no trace has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from peft_evaluation.typing.policies.lines import Around

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
class Chunk:
    """Some lines of a file."""

    file: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """As it is sent."""
        return "\n".join(self.lines) + "\n"

    def likeness(self, other: Chunk) -> float:
        """Jaccard's similarity of the lines."""
        one, two = set(self.lines), set(other.lines)
        return len(one & two) / len(one | two)


@dataclass
class Ring:
    """The chunks that are sent, in the order they were taken in, and those that wait."""

    random: Random
    chunks: list[Chunk] = field(default_factory=list)
    queued: list[Chunk] = field(default_factory=list)
    _last_line: int = -9999

    def around_answer(self, file: str, around: Around, prefix_lines: int, suffix_lines: int) -> None:
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

    def around_cursor(self, file: str, around: Around) -> None:
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
        chunk = Chunk(file, tuple(lines))
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
