"""The function at a line: where it begins and ends, and where its documentation goes.

Python is parsed. In other languages a function is a head by its looks, and reaches to the line with its indentation
that closes it: their grammars are installed only with what tuning needs. A selection of several lines is always taken
as it is. Does not cover what the documentation says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from peft_core.code.lexical_rules import rules_of
from peft_core.code.positions import content
from peft_core.code.structure import parse_functions

MAX_LINES = 400
"""A longer function is not looked for."""
_NOT_A_NAME = r"(?!(?:if|else|for|foreach|while|switch|catch|return|do|with|match|loop|new|throw|await|unless)\b)"
_HEADS = (
    re.compile(
        r"^[ \t]*(?:[\w.]+[ \t]+)*?(?:function\*?|func|fn|fun|def|sub)\b[ \t]*"
        r"(?:\([^)]*\)[ \t]*)?([\w$.?!]+)[ \t]*[<(\[{]?"
    ),
    re.compile(
        r"^[ \t]*(?:export[ \t]+)?(?:const|let|var)[ \t]+([\w$]+)[^=]*="
        r"[ \t]*(?:async\b[ \t]*)?(?:\(|[\w$]+[ \t]*=>|function\b)"
    ),
    re.compile(rf"^[ \t]*(?:[\w$:<>,.&*\[\]?~]+[ \t]+)*[*&]*{_NOT_A_NAME}([\w$:~]+)[ \t]*\([^;]*$"),
)
"""Heads of functions: with a keyword, as a value, and as C and its relatives write them. The group is the name."""
_CLASS = re.compile(r"^[ \t]*(?:\w+[ \t]+)*?(?:class|struct|impl|trait|interface)[ \t]+([A-Za-z_]\w*)")
_DECORATION = re.compile(r"^[ \t]*(?:@|#\[|\[\w|template\b)")
_CLOSING = re.compile(r"^[ \t]*(?:[})\]]|end\b|fi\b|done\b)")


@dataclass(frozen=True)
class FunctionLines:
    """A function in lines ``first`` to ``last``, without decorators."""

    name: str
    owner: str
    """The class of a method; empty for a function."""
    first: int
    last: int
    documented: bool
    """It has a documentation comment already."""
    comment_at: int
    """The documentation comment goes above this line."""
    indentation: str
    """That of the comment."""


def find_function(lines: Sequence[str], language: str, first: int, last: int) -> FunctionLines | None:
    """Return the innermost function around lines ``first`` to ``last``; None if there is none."""
    if language == "python":
        return _python(lines, first, last)
    for top in range(first, max(-1, first - MAX_LINES), -1):
        if (name := _head(lines[top])) is None:
            continue
        bottom = _end(lines, top)
        if bottom >= last:
            return _described(lines, language, name, top, bottom)
    return None


def _python(lines: Sequence[str], first: int, last: int) -> FunctionLines | None:
    text = "".join(f"{content(line)}\n" for line in lines)
    structure = parse_functions(text, "python")
    found = None
    for function in structure.functions:
        top, bottom = structure.text.row(function.span.start), structure.text.row(function.span.end - 1)
        # A cursor on a decorator is at the function as well.
        above = top
        while above > 0 and lines[above - 1].lstrip().startswith("@"):
            above -= 1
        if above <= first and last <= bottom and (function.body or function.docstring):
            start = (function.docstring or function.body).start  # type: ignore[union-attr]  # one of them is there
            row = structure.text.row(start)
            if row > top and (found is None or top >= found.first):
                space = structure.text.lines[row][: start - structure.text.starts[row]]
                found = FunctionLines(
                    function.name, _owner(lines, top), top, bottom, function.docstring is not None, row, space
                )
    return found


def _head(line: str) -> str | None:
    line = content(line)
    if line.lstrip().startswith(("//", "/*", "*", "#", "--")):
        return None
    found = next((match for each in _HEADS if (match := each.match(line))), None)
    return found[1] if found else None


def _end(lines: Sequence[str], top: int) -> int:
    """Return the last line of what begins at ``top``."""
    column = _column(lines[top])
    last = top
    for row in range(top + 1, min(len(lines), top + MAX_LINES)):
        line = content(lines[row])
        if not line.strip():
            continue
        if _column(line) <= column:
            # A closing line, or a brace that opens the body on a line of its own.
            if _CLOSING.match(line):
                return row
            if line.strip() != "{":
                return last
        last = row
    return last


def _described(lines: Sequence[str], language: str, name: str, top: int, bottom: int) -> FunctionLines:
    above = top
    while above > 0 and _DECORATION.match(lines[above - 1]):
        above -= 1
    before = lines[above - 1].strip() if above else ""
    rules = rules_of(language)
    marks = tuple(filter(None, (rules.line_comment,)))
    documented = before.endswith("*/") or bool(marks and before.startswith(marks))
    space = content(lines[top])
    return FunctionLines(
        name, _owner(lines, top), top, bottom, documented, above, space[: len(space) - len(space.lstrip())]
    )


def _owner(lines: Sequence[str], top: int) -> str:
    """Return the name of the class whose method begins at ``top``: its head is the nearest line indented less."""
    column = _column(lines[top])
    above = next((line for line in reversed(lines[:top]) if line.strip() and _column(line) < column), "")
    found = _CLASS.match(above)
    return found[1] if found else ""


def _column(line: str) -> int:
    line = content(line).expandtabs(4)
    return len(line) - len(line.lstrip())


def name_of_tests(path: str, language: str) -> str:
    """Return the usual name of the file with the tests of a file."""
    name = PurePosixPath(path.replace("\\", "/"))
    stem, suffix = name.stem or "untitled", name.suffix
    if language in ("javascript", "javascriptreact", "typescript", "typescriptreact"):
        return f"{stem}.test{suffix or '.js'}"
    if language in ("go", "rust", "dart", "elixir"):
        return f"{stem}_test{suffix}"
    if language in ("java", "kotlin", "csharp", "scala", "swift"):
        return f"{stem}Test{suffix}"
    return f"test_{stem}{suffix or ('.py' if language == 'python' else '')}"
