"""Indentation that fits the cursor: neither missing nor given twice, and in the document's own tabs or spaces."""

from __future__ import annotations

import re
from dataclasses import replace

from peft_core.code.document import Document, leading_space, width
from peft_daemon.completion.cursor import Cursor, statement_above
from peft_daemon.completion.postprocess.draft import Draft

MAX_STYLE_CHARACTERS = 20_000
"""Characters before the cursor in which the document's way of indenting is looked for."""
SPACES_PER_LEVEL = 4
"""What a level of the model's own indentation has, when it must be written in tabs."""
_TABS = re.compile(r"^\t", re.MULTILINE)
_SPACES = re.compile(r"^ {2,}", re.MULTILINE)
_LEADING = re.compile(r"^[ \t]+", re.MULTILINE)


def fit_indentation(draft: Draft, document: Document, cursor: Cursor) -> Draft:
    """Make the text begin at the cursor's column, and move the lines below with its first."""
    before = document.line_before
    if before.strip() or not cursor.state.code or cursor.state.stack:
        return draft
    here = width(before)
    text = draft.text
    code = len(text) - len(text.lstrip(" \t\n"))
    skipped = text.rfind("\n", 0, code) + 1
    if skipped and here and code < len(text):
        # The model left the cursor's line blank and began again on another one.
        lead = text[skipped:code]
        if width(lead) < cursor.floor or not lead.startswith(before):
            return draft.cut(0)
        text = text[skipped + len(before) :]
    elif skipped:
        return draft
    lead = leading_space(text)
    if here < cursor.floor and not lead and text:
        text = _missing(document) + text
    elif here >= cursor.floor and lead:
        text = _shifted(text, lead, here)
    return replace(draft, text=text)


def place_at_cursor(draft: Draft, document: Document, _cursor: Cursor) -> Draft:
    """Code that was written for itself, moved to the indentation of the cursor's line."""
    lines = draft.text.lstrip("\n").split("\n")
    own = leading_space(lines[0])
    target = document.indentation if not document.line_before.strip() else ""
    placed = [line.removeprefix(own) for line in lines]
    return replace(
        draft, text="\n".join(target + line if index and line.strip() else line for index, line in enumerate(placed))
    )


def _shifted(text: str, lead: str, here: int) -> str:
    """The first line without ``lead``; the others too, when the first of them shows that they have it as well."""
    first, *others = text.split("\n")
    example = next((line for line in others if line.strip()), "")
    if width(leading_space(example)) >= here + width(lead):
        others = [line[len(lead) :] if line.startswith(lead) else line for line in others]
    return "\n".join([first[len(lead) :], *others])


def _missing(document: Document) -> str:
    """What the cursor's line lacks to stand inside the block that the line above opens."""
    above = leading_space(statement_above(document))
    return _written(above + level(document), _style(document))[len(document.line_before) :]


def level(document: Document) -> str:
    """One level of the document's indentation."""
    return "\t" if _style(document) == "\t" else " " * SPACES_PER_LEVEL


def use_document_style(draft: Draft, document: Document, _cursor: Cursor) -> Draft:
    """Indentation in tabs where the document has tabs alone, in spaces where it has spaces alone."""
    style = _style(document)
    goes_on = bool(document.line_before.strip())

    def convert(match: re.Match[str]) -> str:
        return match[0] if goes_on and match.start() == 0 else _written(match[0], style)

    return replace(draft, text=_LEADING.sub(convert, draft.text)) if style else draft


def _written(space: str, style: str) -> str:
    """White space of the same width in tabs or spaces alone."""
    if not style or not space.strip(style):
        return space
    columns = len(space.expandtabs(SPACES_PER_LEVEL))
    return "\t" * (columns // SPACES_PER_LEVEL) if style == "\t" else " " * columns


def _style(document: Document) -> str:
    """A tab or a space where the document near the cursor indents with one of them alone, else empty."""
    nearby = document.prefix[-MAX_STYLE_CHARACTERS:]
    tabs, spaces = _TABS.search(nearby) is not None, _SPACES.search(nearby) is not None
    return "" if tabs == spaces else "\t" if tabs else " "
