"""Which parts of a finished file a person could have written last: functions, stretches of one, bits of a line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from peft_evaluation.typing.keystrokes import partners

SHORTEST_BIT, LONGEST_BIT = 5, 30
"""Characters of a bit of a line."""


@dataclass(frozen=True)
class Part:
    """``original[start:end]``; a stretch begins with the line end before its first line."""

    start: int
    end: int
    kind: str
    """``lines`` or ``bit``."""
    typed: int
    """Characters a person types of it."""


def stretches(original: str, shortest: int, longest: int) -> list[Part]:
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


def bits(original: str) -> list[Part]:
    """What stands between two brackets of one line, and what is assigned or returned in one line."""
    found = [Part(opened + 1, closed, "bit", closed - opened - 1) for opened, closed in partners(original).items()]
    found += _values(original)
    fitting = [part for part in found if SHORTEST_BIT <= part.typed <= LONGEST_BIT and _plain(original, part)]
    return sorted(fitting, key=lambda part: (part.start, part.end))


def overlaps(one: Part, other: Part) -> bool:
    """Whether they share a line's neighbourhood, so that not both can be left out."""
    return one.start <= other.end + 1 and other.start <= one.end + 1


def _values(original: str) -> Iterator[Part]:
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
        yield Part(begin + value.col_offset, begin + len(line), "bit", len(line) - value.col_offset)


def _plain(original: str, part: Part) -> bool:
    """Whether it has no line end and begins with what is written, not with white space."""
    text = original[part.start : part.end]
    return "\n" not in text and text == text.strip()


def _lines(original: str, starts: list[int], first: int, last: int) -> Part | None:
    """The lines ``first`` to ``last`` (from 1), from the line end before them; None at the file's very beginning."""
    start, end = starts[first - 1] - 1, starts[last] - 1 if last < len(starts) else len(original)
    if start < 0:
        return None
    typed = sum(len(line.strip()) + 1 for line in original[start + 1 : end].split("\n"))
    return Part(start, end, "lines", typed)


def _line_starts(text: str) -> list[int]:
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    return starts[:-1]
