"""Make traces from code bases: choose the parts of files to type, their order, and what the person does in between.

All choices depend on the seed only: the same files and seed give the same traces, to the millisecond.
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
    bracket_pairs,
)
from peft_evaluation.typing_benchmark.traces import Trace, TraceAction, TraceEvent, TraceFile

PER_CHARACTER_S = 0.35
"""Average time per typed character, including pauses between words and lines; for planning."""
PER_FILE_S = 7.0
"""Time for opening a file, finding the places in it and saving it; for planning."""
MAX_FRAGMENTS = 2
"""Fragments of lines that are typed in a file after its block of lines, at most."""
DETOURS = ("mistake", "undo", "retype")
"""Each file has at least one of these."""
LAST_PAUSE = TypingPause(2.5, 0.01)
"""Wait for a suggestion after the last keystroke."""


@dataclass(frozen=True)
class TraceAmount:
    """Number and length of the traces."""

    traces: int
    seconds: float
    """Approximate length of each trace."""
    files: int
    """Files in each trace, one or two."""
    single_file_seconds: float | None = None
    """Approximate length of every second trace, which then has only one file; None: all traces are alike."""

    def of(self, number: int) -> tuple[float, int]:
        """Return the seconds and the number of files of one trace; the first trace has number 1."""
        if self.single_file_seconds is None or number % 2:
            return self.seconds, self.files
        return self.single_file_seconds, 1


FULL = TraceAmount(traces=12, seconds=31.0, files=2, single_file_seconds=46.0)
QUICK = TraceAmount(traces=2, seconds=16.0, files=1)


def make_traces(amount: TraceAmount, seed: int, sources: Sequence[Path] = ()) -> tuple[Trace, ...]:
    """Make the traces, from one code base after the other in turn.

    Raises InvalidInput if the code bases have too few files, and what ``code_bases`` raises.
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
    """Return a trace of the next files that have enough to type; None if no such files are left."""
    random = Random(f"{seed} {number}")  # noqa: S311  (has to be repeatable, not secret)
    seconds, files = amount.of(number)
    characters = (seconds - PER_FILE_S * files) / PER_CHARACTER_S
    drafts: list[FileDraft] = []
    while names and len(drafts) < files:
        name = names.pop(0)
        original = base.read(name)
        planned = (
            choose_fragments(original, characters / 4, random) if drafts else choose_parts(original, characters, random)
        )
        if planned:
            before = remove_parts(original, planned)
            manner = TypingManner(detour=DETOURS[(number + len(drafts)) % len(DETOURS)])
            drafts.append(FileDraft(name, before, planned, KeystrokeWriter(name, original, before, random, manner)))
    if len(drafts) < files:
        return None
    events = tuple(_session(drafts, random))
    covers = {"cold open", "jump", "save"}.union(*(draft.writer.done for draft in drafts))
    covers |= {"switch files"} if len(drafts) > 1 else set()
    fragment = any(part.kind == "fragment" for each in drafts for part in each.parts)
    covers |= {"edit in the middle"} if fragment else set()
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
    """One file of a trace, the parts of it to type, in that order, and their writer."""

    name: str
    before: str
    parts: tuple[TypedPart, ...]
    writer: KeystrokeWriter

    def write(self, part: TypedPart) -> Iterator[TraceEvent]:
        """Yield the events that type a part."""
        yield from self.writer.write(part.start, part.end, self._offset(part))

    def _offset(self, part: TypedPart) -> int:
        """Return the offset of a missing part in the file's current text."""
        index = self.parts.index(part)
        missing = (other for other in self.parts[index + 1 :] if other.start < part.start)
        return part.start - sum(other.end - other.start for other in missing)


def choose_parts(original: str, characters: float, random: Random) -> tuple[TypedPart, ...]:
    """Choose a block of lines and fragments of other lines, of about ``characters`` together; empty without a block."""
    lines = line_blocks(original, shortest=int(characters * 0.4), longest=int(characters * 0.8))
    if not lines:
        return ()
    first = random.choice(lines)
    return (first, *choose_fragments(original, characters - first.typed, random, besides=first))


def choose_fragments(
    original: str, characters: float, random: Random, *, besides: TypedPart | None = None
) -> tuple[TypedPart, ...]:
    """Choose up to ``MAX_FRAGMENTS`` fragments of at most ``characters`` together, not close to ``besides``."""
    parts: list[TypedPart] = []
    candidates = fragments(original)
    random.shuffle(candidates)
    for part in candidates:
        if len(parts) == MAX_FRAGMENTS or characters < MIN_FRAGMENT_CHARS:
            break
        others = [*parts, *([besides] if besides else [])]
        if part.typed <= characters and not any(overlaps(part, other) for other in others):
            parts.append(part)
            characters -= part.typed
    return tuple(parts)


def remove_parts(original: str, parts: Sequence[TypedPart]) -> str:
    """Return the original without some parts."""
    for part in sorted(parts, key=lambda part: -part.start):
        original = original[: part.start] + original[part.end :]
    return original


def _session(drafts: Sequence[FileDraft], random: Random) -> Iterator[TraceEvent]:
    """Yield the events: type in the first file, then in the other one if there is one, then in the first again."""
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


# Parts of a finished file that a person could have typed last: functions, blocks of lines, fragments of a line.

MIN_FRAGMENT_CHARS, MAX_FRAGMENT_CHARS = 5, 30
"""Length of a fragment of a line, in characters."""


@dataclass(frozen=True)
class TypedPart:
    """The part ``original[start:end]`` of a file; a block of lines includes the line end before its first line."""

    start: int
    end: int
    kind: str
    """``lines`` or ``fragment``."""
    typed: int
    """Number of characters that a person types, without automatic indentation."""


def line_blocks(original: str, shortest: int, longest: int) -> list[TypedPart]:
    """Return the blocks of lines to choose from: whole short functions, and the beginnings of longer bodies.

    ``shortest`` and ``longest`` are in characters without indentation. Docstrings are not included.
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
        # As many statements of the body as are not too long together.
        for last in (statement.end_lineno or statement.lineno for statement in reversed(body)):
            part = _lines(original, starts, first, last)
            if part is not None and shortest <= part.typed <= longest:
                found.append(part)
                break
    return sorted(found, key=lambda part: part.start)


def fragments(original: str) -> list[TypedPart]:
    """Return the fragments of lines to choose from: text in brackets, and assigned or returned values."""
    pairs = bracket_pairs(original)
    found = [TypedPart(opened + 1, closed, "fragment", closed - opened - 1) for opened, closed in pairs.items()]
    found += _values(original)
    suitable = [
        part for part in found if MIN_FRAGMENT_CHARS <= part.typed <= MAX_FRAGMENT_CHARS and _plain(original, part)
    ]
    return sorted(suitable, key=lambda part: (part.start, part.end))


def overlaps(one: TypedPart, other: TypedPart) -> bool:
    """Return whether two parts overlap or touch, so that not both can be left out."""
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
        yield TypedPart(begin + value.col_offset, begin + len(line), "fragment", len(line) - value.col_offset)


def _plain(original: str, part: TypedPart) -> bool:
    """Return whether a part has no line end, and no white space at its ends."""
    text = original[part.start : part.end]
    return "\n" not in text and text == text.strip()


def _lines(original: str, starts: list[int], first: int, last: int) -> TypedPart | None:
    """Return the lines ``first`` to ``last`` (from 1) with the line end before them; None at the start of the file."""
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


# The Python files that traces are made from: installed packages that no shipped adapter was tuned on, or a folder.

PACKAGES = ("pygls", "uvicorn", "typer", "prometheus-client", "anyio", "filelock", "h11", "gguf")
"""Packages of every installation. No shipped adapter was tuned on them; see docs/adapters.md."""
MIN_LINES, MAX_LINES = 120, 620
MAX_LINE_CHARS = 110
MAX_FOLDER_FILES = 2_000
"""Files of a folder that are considered."""
_UNTYPED = "\t\r\f\v\0\x1c\x1d\x1e\x85\u2028\u2029"
_SKIPPED = frozenset({"tests", "test", "testing", "vendor", "_vendor", "_click", "node_modules", "build", "dist"})


@dataclass(frozen=True)
class CodeBase:
    """The suitable files of a package or a folder."""

    name: str
    root: Path
    """The folder that the files' names are relative to."""
    files: tuple[str, ...]

    def read(self, name: str) -> str:
        """Return a file's text."""
        return (self.root / name).read_text(encoding="utf-8")


def code_bases(folders: Sequence[Path], random: Random) -> list[CodeBase]:
    """Return the code bases of ``folders``, or of ``PACKAGES`` if there are none, with the files in random order.

    Raises NotFound if there is no suitable file.
    """
    found = [of_folder(folder) for folder in folders] if folders else [of_package(name) for name in PACKAGES]
    found = [each for each in found if each.files]
    if not found:
        raise NotFound(
            "there is no Python file to type",
            why=f"suitable files have functions, {MIN_LINES} to {MAX_LINES} lines, and lines of up to {MAX_LINE_CHARS} "
            "characters",
            fix="Give a folder of your code: `--source FOLDER`",
        )
    return [CodeBase(each.name, each.root, tuple(random.sample(each.files, len(each.files)))) for each in found]


def of_package(name: str) -> CodeBase:
    """Return the code base of an installed package; it has no files if the package is not installed."""
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return CodeBase(name, Path(), ())
    root = Path(str(distribution.locate_file("")))
    names = sorted(str(file.as_posix()) for file in distribution.files or () if file.suffix == ".py")
    return CodeBase(f"{name} {distribution.version}", root, tuple(_fitting_files(root, names)))


def of_folder(folder: Path) -> CodeBase:
    """Return the code base of a folder; raises InvalidInput if it is not a folder."""
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a folder", fix="Give one with Python files: `--source FOLDER`")
    root = folder.resolve()
    names = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    return CodeBase(root.name, root, tuple(_fitting_files(root, names[:MAX_FOLDER_FILES])))


def _fitting_files(root: Path, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        parts = Path(name).parts
        if _SKIPPED & set(parts) or parts[-1].startswith(("test_", "conftest", "__")) or ".." in parts:
            continue
        try:
            if can_be_typed((root / name).read_text(encoding="utf-8")):
                yield name
        except (OSError, UnicodeDecodeError):
            continue


def can_be_typed(text: str) -> bool:
    """Return whether text is Python that can be typed: no tabs or unusual line ends, no white space on empty lines."""
    lines = text.split("\n")
    if not MIN_LINES <= len(lines) <= MAX_LINES or any(mark in text for mark in _UNTYPED):
        return False
    if any(len(line) > MAX_LINE_CHARS or (line and not line.strip()) for line in lines):
        return False
    try:
        bracket_pairs(text)
        tree = ast.parse(text)
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError):
        return False
    return any(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) for node in ast.walk(tree))
