"""Traces from code bases: which parts of which files are written, in which order, with what in between.

All is drawn from the seed: the same files and seed make the same traces, to the millisecond.
"""

from __future__ import annotations

import ast
import importlib.metadata
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.typing_benchmark.keystrokes import (
    LOOK,
    NOTICE,
    READ,
    KeystrokeWriter,
    TypingManner,
    TypingPause,
    partners,
)
from peft_evaluation.typing_benchmark.traces import Trace, TraceAction, TraceEvent, TraceFile

PER_CHARACTER_S = 0.35
"""What a typed character takes on average, with the pauses between words and lines; for planning."""
PER_FILE_S = 7.0
"""What opening a file, finding the places in it and saving it take."""
BITS = 2
"""Most bits of lines that are written in a file after its stretch."""
DETOURS = ("mistake", "undo", "retype")
"""Each file has one of them for certain."""
LAST_PAUSE = TypingPause(2.5, 0.01)
"""What was typed last may wait that long."""


@dataclass(frozen=True)
class TraceAmount:
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


FULL = TraceAmount(traces=12, seconds=31.0, files=2, staying=46.0)
QUICK = TraceAmount(traces=2, seconds=16.0, files=1)


def make_traces(amount: TraceAmount, seed: int, sources: Sequence[Path] = ()) -> tuple[Trace, ...]:
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


def _from(base: CodeBase, names: list[str], number: int, seed: int, amount: TraceAmount) -> Trace | None:
    """A trace of the next files that have enough to write; None when they are used up."""
    random = Random(f"{seed} {number}")  # noqa: S311  (has to be repeatable, not secret)
    seconds, files = amount.of(number)
    characters = (seconds - PER_FILE_S * files) / PER_CHARACTER_S
    drafts: list[FileDraft] = []
    while names and len(drafts) < files:
        name = names.pop(0)
        original = base.read(name)
        planned = bits_of(original, characters / 4, random) if drafts else parts_of(original, characters, random)
        if planned:
            before = without(original, planned)
            manner = TypingManner(detour=DETOURS[(number + len(drafts)) % len(DETOURS)])
            drafts.append(FileDraft(name, before, planned, KeystrokeWriter(name, original, before, random, manner)))
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
        files=tuple(TraceFile(each.name, each.before, each.writer.original) for each in drafts),
        events=events,
        covers=tuple(sorted(covers)),
    )


@dataclass
class FileDraft:
    """One file, the parts of it that are written, in the order they are, and who writes them."""

    name: str
    before: str
    parts: tuple[TypedPart, ...]
    writer: KeystrokeWriter

    def write(self, part: TypedPart) -> Iterator[TraceEvent]:
        """The events that write it."""
        yield from self.writer.write(part.start, part.end, self._place(part))

    def _place(self, part: TypedPart) -> int:
        """Where in the file as it is now the part is missing."""
        index = self.parts.index(part)
        missing = (other for other in self.parts[index + 1 :] if other.start < part.start)
        return part.start - sum(other.end - other.start for other in missing)


def parts_of(original: str, characters: float, random: Random) -> tuple[TypedPart, ...]:
    """A stretch of lines, then bits of others, about so many characters together; none where it has no such stretch."""
    lines = stretches(original, shortest=int(characters * 0.4), longest=int(characters * 0.8))
    if not lines:
        return ()
    first = random.choice(lines)
    return (first, *bits_of(original, characters - first.typed, random, besides=first))


def bits_of(
    original: str, characters: float, random: Random, *, besides: TypedPart | None = None
) -> tuple[TypedPart, ...]:
    """One or two bits of lines, about so many characters together, away from another part."""
    parts: list[TypedPart] = []
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


def without(original: str, parts: Sequence[TypedPart]) -> str:
    """The original with parts left out."""
    for part in sorted(parts, key=lambda part: -part.start):
        original = original[: part.start] + original[part.end :]
    return original


def _session(drafts: Sequence[FileDraft], random: Random) -> Iterator[TraceEvent]:
    """Opens the first file and writes in it, goes to the second if there is one, comes back: every part is written."""
    first, *others = drafts
    yield from _opened(first, random)
    early, late = first.parts[: max(1, len(first.parts) - 1)], first.parts[max(1, len(first.parts) - 1) :]
    for part in early:
        yield from first.write(part)
    yield first.writer.event(TraceAction.SAVE, NOTICE)
    for other in others:
        yield from _opened(other, random)
        for part in other.parts:
            yield from other.write(part)
        yield other.writer.event(TraceAction.SAVE, NOTICE)
        yield first.writer.event(TraceAction.SWITCH, LOOK)
    for part in late:
        yield from first.write(part)
    yield first.writer.event(TraceAction.PAUSE, LAST_PAUSE)


def _opened(draft: FileDraft, random: Random) -> Iterator[TraceEvent]:
    yield TraceEvent(kind=TraceAction.OPEN, wait_s=NOTICE.draw(random), file=draft.name)
    yield TraceEvent(kind=TraceAction.PAUSE, wait_s=READ.draw(random), file=draft.name)


# Which parts of a finished file a person could have written last: functions, stretches of one, bits of a line.

SHORTEST_BIT, LONGEST_BIT = 5, 30
"""Characters of a bit of a line."""


@dataclass(frozen=True)
class TypedPart:
    """``original[start:end]``; a stretch begins with the line end before its first line."""

    start: int
    end: int
    kind: str
    """``lines`` or ``bit``."""
    typed: int
    """Characters a person types of it."""


def stretches(original: str, shortest: int, longest: int) -> list[TypedPart]:
    """Whole short functions, and the beginnings of the bodies of longer ones; docstrings are not typed.

    ``shortest`` and ``longest`` are characters, indentation left out.
    """
    starts = _line_starts(original)
    found = []
    for node in ast.walk(ast.parse(original)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        if not body or body[0].lineno == node.lineno:
            continue
        whole = len(body) == len(node.body)
        first = min((each.lineno for each in node.decorator_list), default=node.lineno) if whole else body[0].lineno
        # As much of the body as is not too long.
        for last in (statement.end_lineno or statement.lineno for statement in reversed(body)):
            part = _lines(original, starts, first, last)
            if part is not None and shortest <= part.typed <= longest:
                found.append(part)
                break
    return sorted(found, key=lambda part: part.start)


def bits(original: str) -> list[TypedPart]:
    """What stands between two brackets of one line, and what is assigned or returned in one line."""
    found = [TypedPart(opened + 1, closed, "bit", closed - opened - 1) for opened, closed in partners(original).items()]
    found += _values(original)
    fitting = [part for part in found if SHORTEST_BIT <= part.typed <= LONGEST_BIT and _plain(original, part)]
    return sorted(fitting, key=lambda part: (part.start, part.end))


def overlaps(one: TypedPart, other: TypedPart) -> bool:
    """Whether they share a line's neighbourhood, so that not both can be left out."""
    return one.start <= other.end + 1 and other.start <= one.end + 1


def _values(original: str) -> Iterator[TypedPart]:
    starts = _line_starts(original)
    lines = original.split("\n")
    for node in ast.walk(ast.parse(original)):
        value = node.value if isinstance(node, (ast.Assign, ast.Return)) else None
        if value is None or value.lineno != value.end_lineno:
            continue
        line = lines[value.lineno - 1]
        if not line.isascii() or value.end_col_offset != len(line):
            continue
        begin = starts[value.lineno - 1]
        yield TypedPart(begin + value.col_offset, begin + len(line), "bit", len(line) - value.col_offset)


def _plain(original: str, part: TypedPart) -> bool:
    """Whether it has no line end and begins with what is written, not with white space."""
    text = original[part.start : part.end]
    return "\n" not in text and text == text.strip()


def _lines(original: str, starts: list[int], first: int, last: int) -> TypedPart | None:
    """The lines ``first`` to ``last`` (from 1), from the line end before them; None at the file's very beginning."""
    start, end = starts[first - 1] - 1, starts[last] - 1 if last < len(starts) else len(original)
    if start < 0:
        return None
    typed = sum(len(line.strip()) + 1 for line in original[start + 1 : end].split("\n"))
    return TypedPart(start, end, "lines", typed)


def _line_starts(text: str) -> list[int]:
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    return starts[:-1]


# Real Python files to make traces of: installed packages that no adapter of this package was tuned on, or a folder.

PACKAGES = ("pygls", "uvicorn", "typer", "prometheus-client", "anyio", "filelock", "h11", "gguf")
"""Parts of every installation. docs/adapters.md names what the shipped adapters were tuned on: none of these."""
FEWEST_LINES, MOST_LINES = 120, 620
WIDEST = 110
"""Characters of a line."""
LARGEST = 2_000
"""Files of a folder that are looked at."""
_UNTYPED = "\t\r\f\v\0\x1c\x1d\x1e\x85\u2028\u2029"
_SKIPPED = frozenset({"tests", "test", "testing", "vendor", "_vendor", "_click", "node_modules", "build", "dist"})


@dataclass(frozen=True)
class CodeBase:
    """Files that fit."""

    name: str
    root: Path
    """What the files' names are relative to."""
    files: tuple[str, ...]

    def read(self, name: str) -> str:
        """A file's text."""
        return (self.root / name).read_text(encoding="utf-8")


def code_bases(folders: Sequence[Path], random: Random) -> list[CodeBase]:
    """The user's folders, else the packages; files in an order drawn by ``random``.

    Raises NotFound when nothing fits.
    """
    found = [of_folder(folder) for folder in folders] if folders else [of_package(name) for name in PACKAGES]
    found = [each for each in found if each.files]
    if not found:
        raise NotFound(
            "there is no Python file to type",
            why=f"wanted: {FEWEST_LINES} to {MOST_LINES} lines, at most {WIDEST} wide, with functions",
            fix="Give a folder of your code: `--source FOLDER`",
        )
    return [CodeBase(each.name, each.root, tuple(random.sample(each.files, len(each.files)))) for each in found]


def of_package(name: str) -> CodeBase:
    """An installed distribution; without files where it is not installed."""
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return CodeBase(name, Path(), ())
    root = Path(str(distribution.locate_file("")))
    names = sorted(str(file.as_posix()) for file in distribution.files or () if file.suffix == ".py")
    return CodeBase(f"{name} {distribution.version}", root, tuple(_fitting_files(root, names)))


def of_folder(folder: Path) -> CodeBase:
    """All Python files below a folder. Raises InvalidInput where there is none such."""
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder", fix="Give one with Python files: `--source FOLDER`")
    root = folder.resolve()
    names = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    return CodeBase(root.name, root, tuple(_fitting_files(root, names[:LARGEST])))


def _fitting_files(root: Path, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        parts = Path(name).parts
        if _SKIPPED & set(parts) or parts[-1].startswith(("test_", "conftest", "__")) or ".." in parts:
            continue
        try:
            if fits((root / name).read_text(encoding="utf-8")):
                yield name
        except (OSError, UnicodeDecodeError):
            continue


def fits(text: str) -> bool:
    """Whether a text is a Python file that can be typed: one kind of line end, no tabs, nothing on empty lines."""
    lines = text.split("\n")
    if not FEWEST_LINES <= len(lines) <= MOST_LINES or any(mark in text for mark in _UNTYPED):
        return False
    if any(len(line) > WIDEST or (line and not line.strip()) for line in lines):
        return False
    try:
        partners(text)
        tree = ast.parse(text)
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError):
        return False
    return any(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) for node in ast.walk(tree))
