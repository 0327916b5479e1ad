"""What is known about the place of a completion before there is one: what is open there, and how far to go.

Whether a completion is one line, one statement or a block is decided here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from peft_core.code.document import Document, leading_space, width
from peft_core.code.lexer import CLOSERS, LexerState, bracket_balance, rules_of, scan, without_comment

SCANNED = 200_000
"""Characters before (and after) the cursor that are scanned for what is open."""
LONGEST_HEADER = 60
"""Lines above the cursor's among which the beginning of a header is looked for."""


class Extent(StrEnum):
    """How far a completion may reach."""

    LINE = "line"
    """To the end of the cursor's line."""
    STATEMENT = "statement"
    """To the end of the statement on the cursor's line, with the block or the brackets it opens."""
    BLOCK = "block"
    """To the end of the block the cursor stands in, or its next paragraph."""
    STRING = "string"
    """To the end of the string that spans lines in which the cursor stands."""


@dataclass(frozen=True)
class Cursor:
    """The cursor's surroundings.

    ``closed`` are the innermost of ``state.stack`` that the text after the cursor closes: text that closed them
    again would close them twice. ``floor`` is the width of indentation below which a line leaves the block.
    """

    state: LexerState
    closed: tuple[str, ...]
    extent: Extent
    floor: int

    @classmethod
    def of(cls, document: Document, single_line: bool | None = None) -> Cursor:
        """Look around; ``single_line`` true or false overrules what is seen."""
        prefix = document.prefix
        if len(prefix) > SCANNED:
            # A line that is not indented is the start of a statement, or inside a long string: the lesser evil.
            prefix = prefix[prefix.find("\n", len(prefix) - SCANNED) + 1 :]
        state = scan(prefix, document.language).state
        return cls(
            state=state,
            closed=_closed(document, state),
            extent=_extent(document, state, single_line),
            floor=_floor(document),
        )


def opens_block(line: str, language: str) -> bool:
    """Whether a line of code announces an indented block or leaves a bracket open."""
    code = without_comment(line, language)
    return code.endswith(":") if language == "python" else code.endswith(("{", "(", "[", ":"))


def statement_above(document: Document) -> str:
    """The line on which the statement begins that ends on the nearest line above the cursor's.

    Another one than that where a header runs over several lines: ``def f(a,`` above ``b):``.
    """
    above = document.previous_line
    open_brackets = bracket_balance(above, document.language)
    if open_brackets >= 0:
        return above
    end = document.prefix.rfind(above, 0, document.line_start)
    for line in reversed(document.prefix[:end].split("\n")[-LONGEST_HEADER - 1 : -1]):
        open_brackets += bracket_balance(line, document.language)
        if open_brackets >= 0:
            return line
    return above


def closers(text: str) -> str:
    """The closing brackets, quotes and separators a line begins with: what editors insert by themselves."""
    end = 0
    while end < len(text) and (text[end] in CLOSERS or text[end] in "\"'`:;, \t"):
        end += 1
    return text[:end]


def _extent(document: Document, state: LexerState, single_line: bool | None) -> Extent:
    rest = document.line_after.strip()
    if single_line or state.comment == "\n":
        return Extent.LINE
    if state.string:
        spans = state.string in rules_of(document.language).long_quotes
        return Extent.STRING if spans and not rest and single_line is None else Extent.LINE
    if single_line is None and (rest or _body_follows(document)):
        return Extent.LINE
    if not document.line_before.strip() and not state.stack:
        return Extent.BLOCK
    return Extent.BLOCK if single_line is False and not state.stack else Extent.STATEMENT


def _body_follows(document: Document) -> bool:
    """Whether the block that the cursor's line may open is there already."""
    below = document.next_lines[0] if document.next_lines else ""
    return bool(document.line_before.strip()) and width(leading_space(below)) > width(document.indentation)


def _closed(document: Document, state: LexerState) -> tuple[str, ...]:
    if not state.stack:
        return ()
    after = scan(document.suffix[:SCANNED], document.language, state)
    if after.state.string in rules_of(document.language).long_quotes and after.state.string:
        # The rest of the file is inside out: the string at the cursor was begun just now and nothing closes it.
        return ()
    return tuple(each.closer for each in after.closings)


def _floor(document: Document) -> int:
    """The width a line must have to belong to the block the cursor stands in."""
    above, here = document.previous_line, document.line_before
    if here.strip():
        return width(document.indentation)
    header = width(leading_space(statement_above(document)))
    if width(here) <= header and above and opens_block(above, document.language):
        return header + 1
    return width(here)
