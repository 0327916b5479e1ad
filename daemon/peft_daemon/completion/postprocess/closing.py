"""Brackets and quotes around the cursor: none closed twice, and those an editor inserted by itself overwritten.

Only brackets and quotes that were open at the cursor matter here; those the text opens are its own affair.
"""

from __future__ import annotations

from dataclasses import replace

from peft_core.code.document import Document
from peft_core.code.lexer import Closing, scan
from peft_daemon.completion.cursor import Cursor, closers
from peft_daemon.completion.postprocess.draft import Draft

BRACKET_LIKE = frozenset("()[]{}\"'`")


def fit_closing(draft: Draft, document: Document, cursor: Cursor) -> Draft:
    """Reconcile what the text closes with what the text after the cursor closes.

    Where both close the same, the text gives way: it ends before its own closing bracket. When it goes on after it
    (``a).strip()`` before a lone ``)``), it overwrites the one that is there instead.
    """
    ours = scan(draft.text, document.language, cursor.state).closings[: len(cursor.closed)]
    if not ours:
        return _drop_rest_of_line(draft, document)
    theirs = scan(document.line_after, document.language, cursor.state).closings
    adjacent = len(closers(document.line_after))
    reach = [each for each in theirs if each.end <= adjacent][: len(ours)]
    if not reach:
        return draft.cut(_without_rest_of_line(draft.text, document.line_after, ours[0]))
    last_ours, last_theirs = ours[len(reach) - 1], reach[-1]
    end = draft.text.find("\n", last_ours.end)
    tail = draft.text[ours[0].start : end if end >= 0 else None].strip()
    remains = document.line_after[last_theirs.end :].strip()
    same = tail == document.line_after[: last_theirs.end].strip()
    if len(ours) > len(reach) or remains or same or not draft.settled:
        return draft.cut(_without_rest_of_line(draft.text, document.line_after, ours[0]))
    return replace(draft, replace_after=last_theirs.end)


def _without_rest_of_line(text: str, rest: str, closing: Closing) -> int:
    """Where to end before ``closing``, and before what precedes it if that is repeated from the rest of the line."""
    repeated = rest[: rest.find(closing.closer) + len(closing.closer)] if closing.closer in rest else ""
    if len(repeated) > len(closing.closer) and text.endswith(repeated, 0, closing.end):
        return closing.end - len(repeated)
    return closing.start


def _drop_rest_of_line(draft: Draft, document: Document) -> Draft:
    """Without the rest of the cursor's line when the text ends with it, e.g. a ``:`` that is there already."""
    rest, text = document.line_after.strip(), draft.text.rstrip()
    if not rest or not draft.settled or not text.endswith(rest) or any(each in BRACKET_LIKE for each in rest):
        return draft
    while text.endswith(rest):
        text = text.removesuffix(rest).rstrip()
    return draft.cut(len(text))
