"""The functions and blocks of a file in any language, as spans of its text.

They come from a syntax tree if there is a grammar, else from indentation. Spans count characters of a text with ``\\n``
line ends. For speed, only nodes that span several lines are visited.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from peft_core.code.document import leading_space, width
from peft_core.code.languages import Grammar, grammar_of, parser_of

if TYPE_CHECKING:
    from tree_sitter import Node, Tree


@dataclass(frozen=True)
class Span:
    """Characters ``start`` to ``end`` of a text."""

    start: int
    end: int

    def overlaps(self, other: Span) -> bool:
        """Whether both have a character in common."""
        return self.start < other.end and other.start < self.end

    def holds(self, other: Span) -> bool:
        """Whether all of ``other`` lies inside."""
        return self.start <= other.start and other.end <= self.end


@dataclass(frozen=True)
class Statement:
    """A statement (or comment) that begins its line; ``span`` ends where the line's text does."""

    span: Span
    comment: bool = False
    definition: bool = False
    """Whether it defines a function or a type."""


@dataclass(frozen=True)
class Suite:
    """The statements of one block, which have the same indentation, in order."""

    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class Function:
    """A function; ``body`` begins at the first statement after the docstring."""

    span: Span
    """From ``def`` to the end of the body; decorators are not part of it."""
    name: str
    body: Span | None
    docstring: Span | None = None
    outermost: bool = True
    """Whether it is in no other function."""


class SourceText:
    """A text and its lines, with conversions from a syntax tree's rows and byte columns to characters."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = text.split("\n")
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line) + 1)

    def offset(self, point: tuple[int, int]) -> int:
        """Return the offset of the character at a row and a column in bytes."""
        row, column = point
        line = self.lines[row]
        if not line.isascii():
            column = len(line.encode()[:column].decode("utf-8", "ignore"))
        return self.starts[row] + column

    def point(self, offset: int) -> tuple[int, int]:
        """Return the row, and the column in bytes, of a character."""
        row = self.row(offset)
        return row, len(self.text[self.starts[row] : offset].encode())

    def row(self, offset: int) -> int:
        """Return the number of a character's line, from 0."""
        return bisect_right(self.starts, offset, hi=len(self.lines)) - 1

    def span(self, node: Node) -> Span:
        """Return the span of a node."""
        return Span(self.offset(node.start_point), self.offset(node.end_point))

    def content(self, row: int) -> Span:
        """Return the span of a line without the white space around it."""
        line = self.lines[row]
        start = self.starts[row] + len(leading_space(line))
        return Span(start, max(start, self.starts[row] + len(line.rstrip())))

    def begins_line(self, offset: int) -> bool:
        """Whether only white space is before a character on its line."""
        return not self.text[self.starts[self.row(offset)] : offset].strip()


@dataclass(frozen=True)
class Structure:
    """The functions and blocks of a file."""

    text: SourceText
    suites: tuple[Suite, ...] = ()
    functions: tuple[Function, ...] = ()
    opaque: frozenset[int] = frozenset()
    """Rows of multi-line strings and comments, and of text that does not parse."""
    tree: Tree | None = None
    calls: frozenset[str] = frozenset()
    """Types of the tree's nodes that call something."""

    def leaf(self, offset: int) -> Node | None:
        """Return the smallest named node around a character; None without a tree."""
        if self.tree is None:
            return None
        point = self.text.point(offset)
        return self.tree.root_node.named_descendant_for_point_range(point, (point[0], point[1] + 1))

    @cached_property
    def outermost(self) -> tuple[Function, ...]:
        """The functions that are in no other function."""
        return tuple(each for each in self.functions if each.outermost)


def parse_structure(text: str, language: str) -> Structure:
    """Parse a file with ``\\n`` line ends."""
    grammar = grammar_of(language)
    if grammar is None:
        return Structure(view := SourceText(text), tuple(_indented(view)))
    tree = parser_of(grammar).parse(text.encode())
    walk = _Walk(SourceText(text), grammar)
    walk.visit(tree.root_node)
    suites, functions = tuple(walk.suites), tuple(walk.functions)
    return Structure(walk.text, suites, functions, frozenset(walk.opaque), tree, grammar.calls)


def parse_functions(text: str, language: str) -> Structure:
    """Parse a file without its suites, in half the time; without a grammar, same as ``parse_structure``."""
    grammar = grammar_of(language)
    if grammar is None:
        return parse_structure(text, language)
    tree = parser_of(grammar).parse(text.encode())
    walk = _FunctionsOnly(SourceText(text), grammar)
    walk.visit(tree.root_node)
    return Structure(walk.text, (), tuple(walk.functions), frozenset(walk.opaque), tree)


class _Walk:
    def __init__(self, text: SourceText, grammar: Grammar) -> None:
        self.text, self.grammar = text, grammar
        self.suites: list[Suite] = []
        self.functions: list[Function] = []
        self.opaque: set[int] = set()

    def visit(self, root: Node) -> None:
        """Collect from ``root`` down; without recursion, as trees can be deep."""
        grammar = self.grammar
        waiting: list[tuple[Node, bool]] = [(root, False)]
        while waiting:
            node, inside = waiting.pop()
            kind = node.type
            if node.is_error or kind in grammar.strings or kind in grammar.comments:
                self.opaque.update(range(node.start_point[0], node.end_point[0] + 1))
                continue
            if kind in grammar.functions and not node.has_error:
                self._function(node, outermost=not inside)
                inside = True
            elif kind in grammar.blocks:
                self._suite(node)
            several = [each for each in node.named_children if each.start_point[0] != each.end_point[0]]
            waiting.extend((each, inside) for each in reversed(several))

    def _suite(self, block: Node) -> None:
        found: list[Statement] = []
        for node in block.named_children:
            span = self.text.span(node)
            if span.start == span.end or not self.text.begins_line(span.start) or node.has_error:
                continue
            if found and span.start < found[-1].span.end:
                continue
            last = self.text.row(span.end - 1)
            end = max(span.end, self.text.content(last).end)
            if end > block_end(self.text, block):
                continue
            inner = node.child_by_field_name("definition") or node
            defines = inner.type in self.grammar.functions or inner.type in self.grammar.types
            span = Span(span.start, len(self.text.text[:end].rstrip()) if end > span.end else end)
            found.append(Statement(span, node.type in self.grammar.comments, defines))
        if found:
            columns = {width(leading_space(self.text.lines[self.text.row(each.span.start)])) for each in found}
            if len(columns) == 1:
                self.suites.append(Suite(tuple(found)))

    def _function(self, node: Node, *, outermost: bool) -> None:
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        named = self.text.text[slice(*_ends(self.text.span(name)))] if name else ""
        whole = self.text.span(node)
        if body is None:
            return
        statements = [each for each in body.named_children if each.type not in self.grammar.comments]
        if len(statements) == 1 and statements[0].type in self.grammar.blocks:
            statements = [each for each in statements[0].named_children if each.type not in self.grammar.comments]
        docstring = None
        if self.grammar.package == "tree_sitter_python" and statements and _is_docstring(statements[0]):
            docstring = self.text.span(statements.pop(0))
        rest = None
        if statements:
            first, last = self.text.span(statements[0]), self.text.span(statements[-1])
            end = max(last.end, self.text.content(self.text.row(last.end - 1)).end)
            end = min(end, block_end(self.text, body))
            own_lines = self.text.begins_line(first.start) and self.text.row(first.start) > self.text.row(whole.start)
            rest = Span(first.start, end) if own_lines and first.start < end else None
        self.functions.append(Function(whole, named, rest, docstring, outermost))


class _FunctionsOnly(_Walk):
    def _suite(self, block: Node) -> None:
        pass


def block_end(text: SourceText, block: Node) -> int:
    """Return where the statements of a block must end: before its closing brace, if it has one."""
    end = text.offset(block.end_point)
    if text.text[end - 1 : end] == "}" and text.text[text.offset(block.start_point)] == "{":
        return end - 1
    return text.starts[text.row(max(0, end - 1)) + 1] - 1


def _ends(span: Span) -> tuple[int, int]:
    return span.start, span.end


def _is_docstring(node: Node) -> bool:
    return (
        node.type == "expression_statement"
        and node.named_child_count == 1
        and (inner := node.named_children[0]).type == "string"
        and inner.start_point[0] >= node.start_point[0]
    )


def _indented(text: SourceText) -> Iterator[Suite]:
    """Yield a suite wherever the indentation grows: its statements are the lines of that indentation.

    Deeper lines belong to the statement above them.
    """
    rows = [(row, width(leading_space(line))) for row, line in enumerate(text.lines) if line.strip()]
    for index, (row, column) in enumerate(rows):
        if index == 0 or column <= rows[index - 1][1]:
            continue
        starts = [row]
        last = row
        ends: list[int] = []
        for below, deeper in rows[index + 1 :]:
            if deeper < column:
                break
            if deeper == column:
                ends.append(last)
                starts.append(below)
            last = below
        ends.append(last)
        yield Suite(
            tuple(
                Statement(Span(text.content(a).start, text.content(b).end)) for a, b in zip(starts, ends, strict=True)
            )
        )
