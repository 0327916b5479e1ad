"""The last look at a text: no half lines where it was cut off, no line that breaks the file, nothing blank."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from peft_core.code.document import Document
from peft_core.code.lexer import scan
from peft_daemon.completion import syntax
from peft_daemon.completion.cursor import Cursor, Extent
from peft_daemon.completion.postprocess.draft import Draft

_LAST_WORD = re.compile(r"\w+\Z")


def whole_lines(draft: Draft, document: Document, cursor: Cursor) -> Draft:
    """Of a text that was cut off, the lines that are complete, and no bracket or string left open by the last.

    Of a text of less than one line, the whole words. While the text grows, lines that leave something open are held
    back: it may be cut off before they are closed.
    """
    if draft.done:
        return draft
    starts = draft.line_starts()
    if not draft.settled:
        return draft.hold(_closed_end(draft.text, starts[1:], document, cursor) or 0)
    if not draft.truncated:
        return draft
    if cursor.extent is Extent.LINE or len(starts) <= 2:
        return draft.cut(len(_LAST_WORD.sub("", draft.text)))
    return draft.cut(_closed_end(draft.text, starts[1:-1], document, cursor) or starts[-2])


def _closed_end(text: str, ends: Sequence[int], document: Document, cursor: Cursor) -> int | None:
    """The last of the line ends before which all is closed that the text opened."""
    for end in reversed(ends):
        if len(scan(text[:end], document.language, cursor.state).state.stack) <= len(cursor.state.stack):
            return end
    return None


def drop_misfits(draft: Draft, document: Document, cursor: Cursor) -> Draft:
    """Take lines from the end until what is left breaks nothing in the document; the first line always stays.

    While the text grows those lines are held back: what comes next may make them fit.
    """
    if not cursor.state.code:
        return draft
    text = draft.text.rstrip()
    while "\n" in text.strip() and (
        syntax.bare_header(document, text) or not syntax.fits(document, text, draft.replace_after)
    ):
        text = text[: text.rfind("\n")].rstrip()
    return replace(draft, text=text)


def drop_blank(draft: Draft, _document: Document, _cursor: Cursor) -> Draft:
    """No white space at the end, and nothing at all if that is all there is."""
    return replace(draft, text=draft.text.rstrip()) if draft.text.strip() else replace(draft, text="", replace_after=0)
