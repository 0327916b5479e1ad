"""How far the text may reach: to the end of the statement, block or string it belongs to.

Lines inside open brackets and strings have no indentation to speak of and never end a block; so a closing bracket
stays with what it closes, however far left it stands. Does not cover ``Extent.LINE``: see ``lines``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from peft_core.code.document import Document, leading_space, width
from peft_core.code.lexer import scan
from peft_daemon.completion.cursor import Cursor, Extent, opens_block
from peft_daemon.completion.postprocess.draft import Draft

_CLAUSES = {
    "if": ("elif", "else"),
    "elif": ("elif", "else"),
    "for": ("else",),
    "while": ("else",),
    "try": ("except", "else", "finally"),
    "except": ("except", "else", "finally"),
}
"""Words that go on with a statement at its own indentation."""
_LEAVES = frozenset({"return", "raise", "break", "continue"})
_WORD = re.compile(r"\s*(?:async\s+)?(\w+)")


def limit_scope(draft: Draft, document: Document, cursor: Cursor) -> Draft:
    """Cut the text where it leaves what the cursor's extent allows."""
    match cursor.extent:
        case Extent.LINE:
            return draft
        case Extent.STRING:
            return _string(draft, document, cursor)
        case Extent.STATEMENT:
            return _statement(draft, document, cursor)
        case Extent.BLOCK:
            return _block(draft, document, cursor)


def _block(draft: Draft, document: Document, cursor: Cursor) -> Draft:
    """Up to a line left of the block, one that begins a new paragraph of it, or a statement that leaves it."""
    blank = False
    previous = document.line_before + draft.text.split("\n", 1)[0]
    for start, line in _free_lines(draft, document, cursor):
        if _word(previous) in _LEAVES and width(leading_space(previous)) <= cursor.floor:
            return draft.cut(start)
        previous = line
        if not line.strip():
            blank = True
            continue
        columns = width(leading_space(line))
        if columns < cursor.floor or (blank and columns == cursor.floor and draft.text[:start].strip()):
            return draft.cut(start)
        blank = False
    return draft


def _statement(draft: Draft, document: Document, cursor: Cursor) -> Draft:
    """The logical line at the cursor; if it opens a block that block, and the clauses that go on with it."""
    whole = document.line_before + draft.text
    clauses = _CLAUSES.get(_word(whole), ())
    opened = False
    for index, (start, line) in enumerate(_free_lines(draft, document, cursor)):
        if index == 0:
            logical = whole[: len(document.line_before) + start].rstrip("\n")
            opened = not cursor.state.stack and opens_block(logical.rsplit("\n", 1)[-1], document.language)
        if not opened:
            return draft.cut(start)
        if line.strip() and width(leading_space(line)) <= cursor.floor and _word(line) not in clauses:
            return draft.cut(start)
    return draft


def _string(draft: Draft, document: Document, cursor: Cursor) -> Draft:
    """The rest of the string and its quotes; only the rest of the paragraph if the quotes are there already."""
    closings = scan(draft.text, document.language, cursor.state).closings
    if not cursor.closed:
        return draft.cut(closings[0].end) if closings else draft
    if closings:
        draft = draft.cut(closings[0].start)
    paragraph = re.search(r"\S[^\n]*\n[ \t]*\n", draft.text)
    return draft.cut(paragraph.end() - 1) if paragraph else draft


def _word(line: str) -> str:
    match = _WORD.match(line)
    return match[1] if match else ""


def _free_lines(draft: Draft, document: Document, cursor: Cursor) -> Iterator[tuple[int, str]]:
    """Offset and text of every line but the first that begins outside all brackets and strings.

    After a line end the line that comes next counts too, empty as it still is.
    """
    state, starts = cursor.state, draft.line_starts()
    lines = [(start, draft.text[start:end]) for start, end in pairwise(starts)]
    if draft.text.endswith("\n"):
        lines.append((len(draft.text), ""))
    for index, (start, line) in enumerate(lines):
        if index and not state.stack and not state.comment:
            yield start, line.rstrip("\n")
        state = scan(line, document.language, state).state
