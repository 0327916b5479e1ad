"""Lines that must not be there: more than one where one was asked, and those the document already has."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, takewhile

from peft_core.code.document import Document
from peft_core.code.lexer import lexis, without_comment
from peft_daemon.completion.cursor import Cursor, Extent
from peft_daemon.completion.postprocess.draft import Draft

NEARBY = 4000
"""Characters before the cursor in which comments are looked for."""
DISTINCTIVE = 10
"""Characters from which on a line found again below the cursor is no coincidence (``return``, ``else:`` are)."""


def one_line(draft: Draft, _document: Document, cursor: Cursor) -> Draft:
    """Where a completion may not leave its line: up to the end of that line."""
    end = draft.text.find("\n")
    if cursor.extent is not Extent.LINE or end < 0:
        return draft
    # A blank line may be what stands before a fence, which is taken away with what stands before it.
    return draft.cut(end) if draft.settled or draft.text[:end].strip() else draft.hold(end)


def drop_comments_above(draft: Draft, document: Document, _cursor: Cursor) -> Draft:
    """Without the comments at the beginning that stand above the cursor already: the request that is answered."""
    mark = lexis(document.language).line_comment
    above = {line.strip() for line in document.prefix[-NEARBY:].split("\n")} if mark else set()
    begin = 0
    for start, end in pairwise(draft.line_starts()):
        line = draft.text[start:end].strip()
        if line and not (line.startswith(mark) and line in above):
            break
        begin = end if line else begin
    return replace(draft, text=draft.text[begin:]) if above else draft


def drop_following(draft: Draft, document: Document, _cursor: Cursor) -> Draft:
    """Cut where the text begins to repeat the lines that follow the cursor, whatever comments it adds to them.

    One distinctive line is enough, or as many as there are up to the end of the text; short lines (``else:``) are
    held back until the next one tells.
    """
    following = [without_comment(line, document.language) for line in document.next_lines]
    following = [line for line in following if line]
    starts = draft.line_starts()
    lines = [draft.text[a:b].rstrip("\n") for a, b in pairwise(starts)]
    lines = [document.line_before + line if index == 0 else line for index, line in enumerate(lines)]
    lines = [without_comment(line, document.language) for line in lines]
    for index in range(len(lines)):
        if not lines[index] or lines[index : index + 1] != following[:1]:
            continue
        same = [line for line in lines[index:] if line]
        matched = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(same, following, strict=False)))
        if len(following[0].strip()) >= DISTINCTIVE or matched >= 2:
            return draft.cut(starts[index])
        if matched == len(same):
            return draft.cut(starts[index]) if draft.settled else draft.hold(starts[index])
    return draft
