"""Prose that asks for code: the comment at a line, or the docstring of a function that has no body yet.

Comments are found by the language's line comment marks, docstrings by a parse of that one function. A ``#`` line inside
a long string counts as a comment. Does not judge whether the prose makes sense as a request.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from peft_core.code.lexical_rules import rules_of
from peft_core.code.positions import content, split_lines

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

MAX_LINES = 200
"""Lines a comment block or a function's head and docstring may span."""

_VARIANTS = {"#": r"#+(?!!)", "//": r"//[/!]?", "--": r"--+", ";": r";+", "%": r"%+"}
"""By the mark that begins a comment: a pattern for its variants."""
_FOR_TOOLS = re.compile(
    r"""!|%%|%[a-z_]|-\*-|@ts-|\+build[ ]|spdx-|no(?:qa|sec|lint)\b|(?:es|ts|js)lint-|prettier-|clang-format[ ]
    |(?:coding|vim?|type|pragma|pylint|flake8|ruff|mypy|pyright|fmt|isort|yapf|go|rubocop|frozen_string_literal)[:=]""",
    re.IGNORECASE | re.VERBOSE,
)
"""Beginnings of comments for tools; such a line above a request is not part of it. The daemon has the same list."""
_DEF = re.compile(r"([ \t]*)(?:async[ \t]+)?def[ \t]")


@dataclass(frozen=True)
class Prose:
    """Prose in lines ``first`` to ``last``; its code goes below ``last``, indented by ``indentation``."""

    first: int
    last: int
    text: str
    indentation: str
    docstring: bool


def find_prose(lines: Sequence[str], language: str, first: int, last: int) -> Prose | None:
    """Find the prose at lines ``first`` to ``last`` (of a selection or the cursor); None if there is none.

    Both ends of a selection have to be in the same comment or function head.
    """
    if not 0 <= first <= last < len(lines):
        return None
    return _find_comment(lines, language, first, last) or (
        _find_docstring(lines, first, last) if language == "python" else None
    )


def _find_comment(lines: Sequence[str], language: str, first: int, last: int) -> Prose | None:
    pattern = _pattern(language)
    if pattern is None or (here := pattern.fullmatch(content(lines[first]))) is None:
        return None
    indentation, words = here.groups()
    if _FOR_TOOLS.match(words.lstrip()):
        return None
    found = [words]
    top = bottom = first
    for above in reversed(lines[max(first - MAX_LINES, 0) : first]):
        if (match := pattern.fullmatch(content(above))) is None or match[1] != indentation:
            break
        if _FOR_TOOLS.match(match[2].lstrip()):
            break
        top -= 1
        found.insert(0, match[2])
    for below in lines[first + 1 : first + MAX_LINES]:
        if (match := pattern.fullmatch(content(below))) is None or match[1] != indentation:
            break
        bottom += 1
        found.append(match[2])
    text = "\n".join(line.strip() for line in found).strip()
    return Prose(top, bottom, text, indentation, docstring=False) if text and last <= bottom else None


@cache
def _pattern(language: str) -> re.Pattern[str] | None:
    mark = rules_of(language).line_comment
    return re.compile(rf"([ \t]*){_VARIANTS.get(mark) or re.escape(mark)}(.*)") if mark else None


def find_trailing_comment(head: str, text: str, words: str, language: str, line: int) -> Prose | None:
    """Find a comment after code on the same line; None if ``text`` is no comment or there is no code before it."""
    pattern = _pattern(language)
    if not head.strip() or pattern is None or "\n" in text or not pattern.fullmatch(text):
        return None
    return Prose(line, line, words, head[: len(head) - len(head.lstrip())], docstring=False)


def strip_comment_marks(text: str, language: str) -> str:
    """Return a sentence on one line, without the comment marks that its lines may begin with."""
    pattern = _pattern(language)
    found = ((pattern and pattern.fullmatch(line.strip())) or (line, "", line) for line in split_lines(text))
    return " ".join(" ".join(match[2].split()) for match in found).strip()


def as_comment(sentence: str, language: str) -> str | None:
    """Return a sentence as a comment line; None if the language's comment mark is not known."""
    rules = rules_of(language)
    if rules.line_comment:
        return f"{rules.line_comment} {sentence}"
    return f"{rules.block_comment[0]} {sentence} {rules.block_comment[1]}" if rules.block_comment else None


def _find_docstring(lines: Sequence[str], first: int, last: int) -> Prose | None:
    top = first
    while not (head := _DEF.match(lines[top])):
        top -= 1
        if top < 0 or first - top > MAX_LINES:
            return None
    # Without its indentation, the parser takes it for a top-level function.
    source = [content(line).removeprefix(head[1]) for line in lines[top : top + MAX_LINES]]
    function = _parser().parse("\n".join(source).encode("utf-8", "replace")).root_node.child(0)
    body = function.child_by_field_name("body") if function and function.type == "function_definition" else None
    if body is None or body.named_child_count != 1 or (string := _string(body.named_child(0))) is None:
        return None
    start, bottom = string.start_point, top + string.end_point.row
    inner = next((child.text for child in string.named_children if child.type == "string_content"), None)
    if start.row == 0 or last > bottom or inner is None:
        return None
    text = inspect.cleandoc(inner.decode())
    return Prose(top, bottom, text, head[1] + source[start.row][: start.column], docstring=True) if text else None


def _string(statement: Node | None) -> Node | None:
    if statement is None or statement.type != "expression_statement":
        return None
    child = statement.named_child(0)
    return child if child is not None and child.type == "string" and statement.named_child_count == 1 else None


@cache
def _parser() -> Parser:
    import tree_sitter_python  # noqa: PLC0415  (first needed long after the start)
    from tree_sitter import Language, Parser  # noqa: PLC0415

    return Parser(Language(tree_sitter_python.language()))
