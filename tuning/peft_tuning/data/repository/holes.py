"""Cut holes out of a file, where a cursor could stand.

The convention is that of completion (``peft_daemon.completion``): line ends are ``\\n``; prefix + middle + suffix is
the file; a middle neither begins nor ends with white space, so the prefix ends with the indentation or a typed space,
and the suffix begins with the rest of the line, or with its line end.

- ``TOKEN``: the rest of a word, an expression or the arguments in a pair of brackets; the line continues after it.
- ``CALL``: a call on one line, its name with its arguments, or the arguments from one of them on, up to the bracket.
- ``LINE``: the rest of a line from a token on (or from inside a word), or the whole line; ends before the line end.
- ``BLOCK``: from a statement's indentation to where completion stops (a blank line followed by a line of that
  indentation, a line further left, a ``return``); or from a word on a statement's first line to the end of that
  statement. Ends with the last line's last character.
- ``BODY``: a whole function body, after the docstring if there is one, with all its paragraphs.

The same structure, seed and settings give the same holes. Code for a docstring or comment within its file is a ``BODY``
or ``BLOCK`` hole with ``described`` set. Tuning and evaluation use the same holes.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peft_core.code.lexer import BRACKETS
from peft_core.code.structure import Function, Span, Statement, Structure, Suite
from peft_tuning.data.examples import HoleKind

if TYPE_CHECKING:
    from tree_sitter import Node

_TOKEN = re.compile(r"\w+|==|!=|<=|>=|->|=>|:=|\*\*|//|&&|\|\||::|<<|>>|[-+*/%&|^]=|\.\.\.|[^\w\s]")
_COMMENT = ("#", "//", "/*", "*", "--")
_INSIDE_STRING = frozenset(
    {"string_content", "string_fragment", "string_end", "escape_sequence", "escape_interpolation"}
)
_STRING = re.compile(r"[rbuRBU]{0,2}[\"']")
_EXIT_KEYWORDS = ("return", "raise", "throw", "break", "continue")
_EMPTY_BODY = re.compile(r"(?:pass|\.\.\.|raise NotImplementedError\b.*)", re.DOTALL)


@dataclass(frozen=True)
class Hole:
    """A hole: characters ``start`` to ``end`` of the text are cut out."""

    kind: HoleKind
    start: int
    end: int
    described: bool = False
    """Whether a comment or docstring directly above describes the code."""


@dataclass(frozen=True, kw_only=True)
class HoleSettings:
    """Number, kinds and sizes of the holes; shares are from 0 to 1."""

    shares: Mapping[HoleKind, float] = field(
        default_factory=lambda: {HoleKind.LINE: 0.45, HoleKind.BLOCK: 0.25, HoleKind.BODY: 0.18, HoleKind.TOKEN: 0.12}
    )
    """Weights of the kinds; a kind that is not named is not cut."""
    lines_per_hole: int = 5
    """Lines of code for each hole."""
    max_holes: int = 40
    """Most holes in one file."""
    max_token_chars: int = 60
    max_line_chars: int = 160
    max_chars: int = 800
    """Longest middle that spans lines: about as long as the 256 tokens that an answer may have."""
    max_lines: int = 24
    whole_line_share: float = 0.3
    """Share of the line holes that begin at the indentation."""
    in_word_share: float = 0.25
    """Share of the holes within a line that begin inside a word."""
    arguments_share: float = 0.5
    """Share of the holes at calls that are arguments only."""


DEFAULT = HoleSettings()


def cut_holes(
    structure: Structure, *, seed: str, settings: HoleSettings = DEFAULT, avoid: Sequence[Span] = ()
) -> tuple[Hole, ...]:
    """Cut holes in random order, none twice, none that touches a span of ``avoid``.

    If a file has too few of one kind, a smaller kind is cut instead. ``seed`` should contain the file's path.
    """
    cutter = _Cutter(structure, settings, random.Random(seed))  # noqa: S311  (choice, not secrecy)
    code = [row for row in range(len(structure.text.lines)) if cutter.is_code(row)]
    pools: Mapping[HoleKind, _Pool] = {
        HoleKind.BODY: _Pool(list(cutter.bodies())),
        HoleKind.BLOCK: _Pool(list(cutter.blocks())),
        HoleKind.LINE: _Pool([[row] for row in code]),
        HoleKind.TOKEN: _Pool([[row] for row in code if structure.tree]),
        HoleKind.CALL: _Pool([[row] for row in code if structure.calls]),
    }
    order = (HoleKind.BODY, HoleKind.BLOCK, HoleKind.CALL, HoleKind.TOKEN, HoleKind.LINE)
    kinds, weights = zip(*settings.shares.items(), strict=True)
    found: dict[tuple[int, int], Hole] = {}
    for _ in range(min(settings.max_holes, -(-len(code) // settings.lines_per_hole))):
        drawn = cutter.rng.choices(kinds, weights)[0]
        for kind in order[order.index(drawn) :]:
            hole = cutter.next(pools[kind], kind, avoid, found.values()) if settings.shares.get(kind) else None
            if hole:
                found[hole.start, hole.end] = hole
                break
    return tuple(found.values())


def cut_hole_in_each(
    structure: Structure,
    spans: Sequence[Span],
    *,
    seed: str,
    settings: HoleSettings = DEFAULT,
    avoid: Sequence[Span] = (),
) -> tuple[Hole | None, ...]:
    """Cut one hole in each of ``spans``, which consist of whole lines, are in order and do not overlap.

    The kind is drawn by ``settings.shares``; if a span has none of that kind, another kind is cut. None stands for a
    span in which nothing can be cut. ``seed`` should contain the file's path.
    """
    cutter = _Cutter(structure, settings, random.Random(seed))  # noqa: S311  (choice, not secrecy)
    starts = [span.start for span in spans]
    bodies: list[list[Hole]] = [[] for _ in spans]
    statements: list[list[tuple[Suite, int]]] = [[] for _ in spans]
    for hole in (each for group in cutter.bodies() for each in group):
        if (at := bisect_right(starts, hole.start) - 1) >= 0:
            bodies[at].append(hole)
    for suite in structure.suites:
        for index, statement in enumerate(suite.statements):
            if (at := bisect_right(starts, statement.span.start) - 1) >= 0:
                statements[at].append((suite, index))
    found: list[Hole | None] = []
    for at, span in enumerate(spans):
        near = [each for each in avoid if each.overlaps(span)]
        found.append(cutter.draw_in(span, bodies[at], statements[at], near))
    return tuple(found)


class _Pool:
    """Candidates in groups.

    A group is drawn first, so that rare candidates are drawn as often as frequent ones.
    """

    def __init__(self, groups: list[list[Hole]] | list[list[int]]) -> None:
        self.groups: list[list[Hole | int]] = [list(group) for group in groups if group]

    def draw(self, rng: random.Random) -> Hole | int | None:
        """Remove and return a random candidate; None if none is left."""
        if not self.groups:
            return None
        index = rng.randrange(len(self.groups))
        group = self.groups[index]
        at = rng.randrange(len(group))
        group[at], group[-1] = group[-1], group[at]
        chosen = group.pop()
        if not group:
            self.groups[index] = self.groups[-1]
            self.groups.pop()
        return chosen


class _Cutter:
    def __init__(self, structure: Structure, settings: HoleSettings, rng: random.Random) -> None:
        self.structure, self.text = structure, structure.text
        self.settings, self.rng = settings, rng

    def next(self, pool: _Pool, kind: HoleKind, avoid: Sequence[Span], taken: Iterable[Hole]) -> Hole | None:
        """Return the next usable hole of a pool; None if there is none."""
        ends = {(each.kind, each.end) for each in taken}
        spans = {(each.start, each.end) for each in taken}
        while (chosen := pool.draw(self.rng)) is not None:
            if isinstance(chosen, Hole):
                hole: Hole | None = chosen
                if (kind, chosen.end) in ends:
                    continue
            else:
                cut = {HoleKind.TOKEN: self.token, HoleKind.CALL: self.call}.get(kind, self.line)
                hole = cut(chosen)
            if hole is None or (hole.start, hole.end) in spans:
                continue
            row = Span(self.text.starts[self.text.row(hole.start)], max(hole.end, hole.start + 1))
            if not any(row.overlaps(each) for each in avoid):
                return hole
        return None

    def draw_in(
        self, span: Span, bodies: Sequence[Hole], statements: Sequence[tuple[Suite, int]], avoid: Sequence[Span]
    ) -> Hole | None:
        """Return a hole in a span of whole lines, of a drawn kind if there is one.

        ``bodies`` and ``statements`` are those that begin in the span. Blocks are looked for only if they are drawn.
        """
        left = dict(self.settings.shares)
        while left:
            kind = self.rng.choices(list(left), list(left.values()))[0]
            del left[kind]
            if kind is HoleKind.BODY:
                pool = _Pool([[hole for hole in bodies if hole.end <= span.end]])
            elif kind is HoleKind.BLOCK:
                groups = self._by_beginning(statements)
                pool = _Pool([[hole for hole in group if hole.end <= span.end] for group in groups])
            else:
                first, last = self.text.row(span.start), self.text.row(max(span.start, span.end - 1))
                needed = {HoleKind.TOKEN: self.structure.tree, HoleKind.CALL: self.structure.calls}.get(kind, True)
                rows = range(first, last + 1) if needed else ()
                pool = _Pool([[row] for row in rows if self.is_code(row)])
            if hole := self.next(pool, kind, avoid, ()):
                return hole
        return None

    def is_code(self, row: int) -> bool:
        """Whether a line can have a hole of its own."""
        line = self.text.lines[row].strip()
        return (
            row not in self.structure.opaque
            and 4 <= len(line) <= self.settings.max_line_chars
            and not line.startswith(_COMMENT)
            and re.search(r"\w", line) is not None
        )

    def line(self, row: int) -> Hole | None:
        """Make a hole from somewhere on a line to its end; None if it would be too small."""
        content = self.text.content(row)
        start = content.start
        if self.rng.random() >= self.settings.whole_line_share or len(_TOKEN.findall(self._text_of(content))) < 2:
            start = self._typing_position(content)
        if start < 0 or not self._is_useful(Span(start, content.end)):
            return None
        return Hole(HoleKind.LINE, start, content.end)

    def token(self, row: int) -> Hole | None:
        """Make a hole that ends before its line does; None if that is not possible."""
        content = self.text.content(row)
        start = self._typing_position(content, whole=True)
        if start < 0 or (leaf := self.structure.leaf(start)) is None:
            return None
        end = self._expression_end(leaf, content)
        span = Span(start, end)
        after = self.text.text[end : end + 1]
        if not self._is_useful(span) or end - start > self.settings.max_token_chars or after.isalnum() or after == "_":
            return None
        return Hole(HoleKind.TOKEN, start, end) if self.text.text[end : content.end].strip() else None

    def call(self, row: int) -> Hole | None:
        """Make a hole of a call on a line, or of a part of it (see the module's docstring); None if there is none."""
        calls = self._calls(self.text.content(row))
        if not calls:
            return None
        chosen = self.rng.choice(calls)
        whole, arguments = self.text.span(chosen), chosen.child_by_field_name("arguments")
        spans = [whole]
        if arguments is not None:
            opened = self.text.span(arguments)
            if name := re.search(r"\w+\s*$", self.text.text[whole.start : opened.start]):
                spans.append(Span(whole.start + name.start(), whole.end))
            end = opened.start + len(self.text.text[opened.start : opened.end - 1].rstrip())
            firsts = [self.text.offset(each.start_point) for each in arguments.named_children]
            if firsts and self.rng.random() < self.settings.arguments_share:
                spans = [Span(self.rng.choice(firsts), end)]
        span = self.rng.choice(spans)
        usable = self._is_useful(span) and self._is_code_at(span.start)
        return Hole(HoleKind.CALL, span.start, span.end) if usable else None

    def _calls(self, line: Span) -> list[Node]:
        """Return the calls that begin and end on a line, in the order of their first tokens."""
        found: dict[int, Node] = {}
        for match in _TOKEN.finditer(self._text_of(line)):
            node = self.structure.leaf(line.start + match.start())
            while node is not None and node.start_point[0] == node.end_point[0] and node.id not in found:
                if node.type in self.structure.calls and not node.has_error:
                    found[node.id] = node
                node = node.parent
        return list(found.values())

    def blocks(self) -> Iterator[list[Hole]]:
        """Yield candidates by where they begin: a block's first line, below a comment, anywhere, after a word."""
        suites = self.structure.suites
        yield from self._by_beginning((suite, index) for suite in suites for index in range(len(suite.statements)))

    def _by_beginning(self, statements: Iterable[tuple[Suite, int]]) -> tuple[list[Hole], ...]:
        first: list[Hole] = []
        described: list[Hole] = []
        inner: list[Hole] = []
        typed: list[Hole] = []
        for suite, index in statements:
            each = suite.statements[index]
            if each.comment:
                continue
            if hole := self._paragraph(suite, index):
                several = "\n" in self.text.text[hole.start : hole.end]
                indented = self.text.starts[self.text.row(hole.start)] < hole.start
                below = index > 0 and suite.statements[index - 1].comment and self._follows_directly(suite, index)
                if below:
                    described.append(Hole(HoleKind.BLOCK, hole.start, hole.end, described=True))
                elif indented and self._is_first(suite, index):
                    first.append(hole)
                elif several:
                    inner.append(hole)
            if hole := self._statement(each):
                typed.append(hole)
        return first, described, inner, typed

    def bodies(self) -> Iterator[list[Hole]]:
        """Yield function bodies, first those with a docstring, then the others."""
        usable = [each for each in self.structure.functions if self.fillable(each)]
        for described in (True, False):
            yield [
                Hole(HoleKind.BODY, each.body.start, each.body.end, described)
                for each in usable
                if each.body and (each.docstring is not None) == described
            ]

    def fillable(self, function: Function) -> bool:
        """Whether a function's body is not empty and not too long."""
        body = function.body
        return body is not None and self._fits(body) and not _EMPTY_BODY.fullmatch(self._text_of(body))

    def _paragraph(self, suite: Suite, index: int) -> Hole | None:
        """Make a hole from a statement to where completion stops (see the module's docstring); None if unusable."""
        statements = suite.statements
        if statements[index].definition or _STRING.match(self.text.text, statements[index].span.start):
            return None
        last, begin = index, statements[index].span.start
        for below in range(index + 1, len(statements)):
            if (
                self._is_exit(statements[last])
                or not self._follows_directly(suite, below)
                or statements[below].definition
                or (statements[below].comment and below + 1 == len(statements))
            ):
                break
            if not statements[below].comment and self._is_too_long(begin, statements[below].span.end):
                return None  # what follows, in a file of many thousand such lines, cannot make it shorter
            last = below
        while statements[last].comment:
            last -= 1
        span = Span(statements[index].span.start, statements[last].span.end)
        return Hole(HoleKind.BLOCK, span.start, span.end) if self._fits(span) else None

    def _is_too_long(self, start: int, end: int) -> bool:
        lines = self.text.row(end) - self.text.row(start)
        return end - start > self.settings.max_chars or lines >= self.settings.max_lines

    def _statement(self, statement: Statement) -> Hole | None:
        """Make a hole from a word on the first line of a multi-line statement to its end; None if unusable."""
        span = statement.span
        if span.end - span.start > 2 * self.settings.max_chars or "\n" not in self._text_of(span):
            return None
        row = self.text.row(span.start)
        line = self.text.content(row)
        if row in self.structure.opaque or self._text_of(line).startswith("@"):
            return None
        start = self._typing_position(line, min_tokens=2 if statement.definition else 1)
        typed = self.text.text[line.start : max(start, line.start)]
        if self._text_of(line).endswith((":", "{")) and any(
            typed.count(a) != typed.count(b) for a, b in BRACKETS.items()
        ):
            return None  # after an open bracket, completion stops at the end of the header
        span = Span(start, statement.span.end)
        return Hole(HoleKind.BLOCK, span.start, span.end) if start >= 0 and self._fits(span) else None

    def _typing_position(self, line: Span, *, min_tokens: int = 1, whole: bool = False) -> int:
        """Draw a position on a line where typing may have stopped, after ``min_tokens``; -1 if there is none."""
        tokens = list(_TOKEN.finditer(self._text_of(line)))
        rest = tokens[0 if whole else min_tokens :]
        candidates = [match for match in rest if self._is_code_at(line.start + match.start())]
        if not candidates:
            return -1
        match = self.rng.choice(candidates)
        inside = len(match[0]) >= 4 and match[0].isidentifier() and self.rng.random() < self.settings.in_word_share
        return line.start + match.start() + (self.rng.randint(1, min(3, len(match[0]) - 2)) if inside else 0)

    def _is_code_at(self, offset: int) -> bool:
        leaf = self.structure.leaf(offset)
        if leaf is None:
            return True
        if "comment" in leaf.type or leaf.type in _INSIDE_STRING:
            return False
        return "string" not in leaf.type or self.text.offset(leaf.start_point) == offset

    def _expression_end(self, leaf: Node, line: Span) -> int:
        """Draw the end of an expression, or of a list in brackets, that begins with ``leaf``."""
        node = leaf
        while (parent := node.parent) and parent.start_point == leaf.start_point:
            if self.text.offset(parent.end_point) >= line.end or self.rng.random() < 0.4:
                break
            node = parent
        end = self.text.offset(node.end_point)
        if (parent := node.parent) and parent.child_count and parent.end_point[0] == leaf.start_point[0]:
            opening, closing = parent.children[0], parent.children[-1]
            first = len(parent.children) > 2 and parent.children[1].start_point == node.start_point
            if first and BRACKETS.get(opening.type) == closing.type and self.rng.random() < 0.5:
                end = self.text.offset(closing.start_point)
                end -= len(trailing := self.text.text[line.start : end]) - len(trailing.rstrip())
        return end

    def _is_first(self, suite: Suite, index: int) -> bool:
        """Whether a statement is the first of its block, or the first after a docstring."""
        return index == 0 or (index == 1 and _STRING.match(self._text_of(suite.statements[0].span)) is not None)

    def _is_exit(self, statement: Statement) -> bool:
        return self._text_of(statement.span).startswith(_EXIT_KEYWORDS)

    def _follows_directly(self, suite: Suite, index: int) -> bool:
        """Whether there is no blank line between a statement and the one before it."""
        a, b = suite.statements[index - 1].span, suite.statements[index].span
        between = self.text.lines[self.text.row(a.end - 1) + 1 : self.text.row(b.start)]
        return all(line.strip() for line in between)

    def _fits(self, span: Span) -> bool:
        text = self._text_of(span)
        return (
            3 <= len(text) <= self.settings.max_chars
            and text.count("\n") < self.settings.max_lines
            and text == text.strip()
            and re.search(r"\w", text) is not None
        )

    def _is_useful(self, span: Span) -> bool:
        text = self._text_of(span)
        return len(text) >= 2 and text == text.strip() and re.search(r"\w", text) is not None

    def _text_of(self, span: Span) -> str:
        return self.text.text[span.start : span.end]
