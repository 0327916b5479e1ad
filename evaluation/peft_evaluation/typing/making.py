"""Traces from code bases: which parts of which files are written, in which order, with what in between.

All is drawn from the seed: the same files and seed make the same traces, to the millisecond.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from peft_core.errors import InvalidInput
from peft_evaluation.typing import rhythm
from peft_evaluation.typing.keystrokes import Manner, Writer
from peft_evaluation.typing.parts import SHORTEST_BIT, Part, bits, overlaps, stretches
from peft_evaluation.typing.sources import CodeBase, code_bases
from peft_evaluation.typing.traces import Event, Kind, SourceFile, Trace

PER_CHARACTER_S = 0.35
"""What a typed character takes on average, with the pauses between words and lines; for planning."""
PER_FILE_S = 7.0
"""What opening a file, finding the places in it and saving it take."""
BITS = 2
"""Most bits of lines that are written in a file after its stretch."""
DETOURS = ("mistake", "undo", "retype")
"""Each file has one of them for certain."""
END = rhythm.Pause(2.5, 0.01)
"""What was typed last may wait that long."""


@dataclass(frozen=True)
class Amount:
    """How much is typed."""

    traces: int
    seconds: float
    """About how long each is."""
    files: int
    """One or two in each."""
    staying: float | None = None
    """About how long every second trace is, in which one stretch of one file is written; None: all are alike."""

    def of(self, number: int) -> tuple[float, int]:
        """Seconds and files of one trace, counted from 1."""
        return (self.seconds, self.files) if self.staying is None or number % 2 else (self.staying, 1)


FULL = Amount(traces=12, seconds=31.0, files=2, staying=46.0)
QUICK = Amount(traces=2, seconds=16.0, files=1)


def make(amount: Amount, seed: int, sources: Sequence[Path] = ()) -> tuple[Trace, ...]:
    """So many traces, one code base after the other.

    Raises InvalidInput when the code bases have too few files, and what ``code_bases`` raises.
    """
    found = code_bases(sources, Random(f"{seed} files"))  # noqa: S311  (has to be repeatable, not secret)
    queues = [(base, list(base.files)) for base in found]
    traces: list[Trace] = []
    while len(traces) < amount.traces:
        before = len(traces)
        for base, names in queues:
            if len(traces) < amount.traces and (trace := _from(base, names, len(traces) + 1, seed, amount)):
                traces.append(trace)
        if len(traces) == before:
            raise InvalidInput(
                f"only {before} of {amount.traces} traces can be made of these files",
                why="each trace takes two of them",
                fix="Add another `--source FOLDER`, or ask for fewer with `--traces`",
            )
    return tuple(traces)


def _from(base: CodeBase, names: list[str], number: int, seed: int, amount: Amount) -> Trace | None:
    """A trace of the next files that have enough to write; None when they are used up."""
    random = Random(f"{seed} {number}")  # noqa: S311  (has to be repeatable, not secret)
    seconds, files = amount.of(number)
    characters = (seconds - PER_FILE_S * files) / PER_CHARACTER_S
    drafts: list[Draft] = []
    while names and len(drafts) < files:
        name = names.pop(0)
        original = base.read(name)
        planned = bits_of(original, characters / 4, random) if drafts else parts_of(original, characters, random)
        if planned:
            before = without(original, planned)
            manner = Manner(detour=DETOURS[(number + len(drafts)) % len(DETOURS)])
            drafts.append(Draft(name, before, planned, Writer(name, original, before, random, manner)))
    if len(drafts) < files:
        return None
    events = tuple(_session(drafts, random))
    covers = {"cold open", "jump", "save"}.union(*(draft.writer.done for draft in drafts))
    covers |= {"switch files"} if len(drafts) > 1 else set()
    covers |= {"edit in the middle"} if any(part.kind == "bit" for each in drafts for part in each.parts) else set()
    return Trace(
        id=f"{number:02}-{Path(drafts[0].name).stem}",
        code_base=base.name,
        root=str(base.root),
        files=tuple(SourceFile(each.name, each.before, each.writer.original) for each in drafts),
        events=events,
        covers=tuple(sorted(covers)),
    )


@dataclass
class Draft:
    """One file, the parts of it that are written, in the order they are, and who writes them."""

    name: str
    before: str
    parts: tuple[Part, ...]
    writer: Writer

    def write(self, part: Part) -> Iterator[Event]:
        """The events that write it."""
        yield from self.writer.write(part.start, part.end, self._place(part))

    def _place(self, part: Part) -> int:
        """Where in the file as it is now the part is missing."""
        index = self.parts.index(part)
        missing = (other for other in self.parts[index + 1 :] if other.start < part.start)
        return part.start - sum(other.end - other.start for other in missing)


def parts_of(original: str, characters: float, random: Random) -> tuple[Part, ...]:
    """A stretch of lines, then bits of others, about so many characters together; none where it has no such stretch."""
    lines = stretches(original, shortest=int(characters * 0.4), longest=int(characters * 0.8))
    if not lines:
        return ()
    first = random.choice(lines)
    return (first, *bits_of(original, characters - first.typed, random, besides=first))


def bits_of(original: str, characters: float, random: Random, *, besides: Part | None = None) -> tuple[Part, ...]:
    """One or two bits of lines, about so many characters together, away from another part."""
    parts: list[Part] = []
    candidates = bits(original)
    random.shuffle(candidates)
    for part in candidates:
        if len(parts) == BITS or characters < SHORTEST_BIT:
            break
        others = [*parts, *([besides] if besides else [])]
        if part.typed <= characters and not any(overlaps(part, other) for other in others):
            parts.append(part)
            characters -= part.typed
    return tuple(parts)


def without(original: str, parts: Sequence[Part]) -> str:
    """The original with parts left out."""
    for part in sorted(parts, key=lambda part: -part.start):
        original = original[: part.start] + original[part.end :]
    return original


def _session(drafts: Sequence[Draft], random: Random) -> Iterator[Event]:
    """Opens the first file and writes in it, goes to the second if there is one, comes back: every part is written."""
    first, *others = drafts
    yield from _opened(first, random)
    early, late = first.parts[: max(1, len(first.parts) - 1)], first.parts[max(1, len(first.parts) - 1) :]
    for part in early:
        yield from first.write(part)
    yield first.writer.event(Kind.SAVE, rhythm.NOTICE)
    for other in others:
        yield from _opened(other, random)
        for part in other.parts:
            yield from other.write(part)
        yield other.writer.event(Kind.SAVE, rhythm.NOTICE)
        yield first.writer.event(Kind.SWITCH, rhythm.LOOK)
    for part in late:
        yield from first.write(part)
    yield first.writer.event(Kind.PAUSE, END)


def _opened(draft: Draft, random: Random) -> Iterator[Event]:
    yield Event(kind=Kind.OPEN, wait_s=rhythm.NOTICE.draw(random), file=draft.name)
    yield Event(kind=Kind.PAUSE, wait_s=rhythm.READ.draw(random), file=draft.name)
