"""A model that runs in circles: its text is cut after the first round.

Within a line that is only believed of a text that was cut off: a model that ended its row of zeros meant it. A row that
goes on and on is cut off for it (``circles``), so that nobody waits for the token limit.
"""

from __future__ import annotations

import re
from itertools import pairwise

from peft_core.code.document import Document
from peft_core.code.lexer import scan
from peft_daemon.completion.cursor import Cursor
from peft_daemon.completion.postprocess.draft import Draft

LONGEST_PERIOD = 6
"""Lines in the longest round that is looked for."""
ROUNDS = 3
"""How often lines must occur in a row to count as running in circles."""
LONGEST_UNIT = 60
"""Characters in the longest round that is looked for within a line."""
ENDLESS_ROUNDS = 8
"""Repeats of a piece within a line from which on the text may be cut off."""
ENDLESS_CHARACTERS = 120
"""Length of such a row from which on the text is cut off: tables and rules are written in one line too."""
_IN_LINE = re.compile(rf"(.{{4,{LONGEST_UNIT}}}?)\1{{3,}}.{{0,{LONGEST_UNIT}}}\Z", re.DOTALL)


def cut_repetition(draft: Draft, document: Document, cursor: Cursor) -> Draft:
    """Cut a text whose last lines, or whose last line's pieces, repeat without end.

    Of a line that does, the first round stays only where there is no other line. Lines before the cut that leave a
    bracket or string open go too: what would have closed it never came.
    """
    starts = draft.line_starts()
    lines = [draft.text[a:b].rstrip() for a, b in pairwise(starts)]
    held = len(lines)
    for period in range(1, min(LONGEST_PERIOD, len(lines)) + 1):
        run = 0
        for index in range(period, len(lines)):
            run = run + 1 if _again(lines, index, period) else 0
            if run >= period * (ROUNDS - 1) and any(lines[index - period + 1 : index + 1]):
                return _closed(draft.cut(starts[index - run + 1]), document, cursor)
        held = min(held, len(lines) - run)
    if not draft.settled:
        # The beginning of what may turn out to be another round.
        return draft.hold(starts[held])
    begin = starts[-2] if len(starts) > 1 else 0
    if draft.truncated and (end := _first_round(draft.text, begin)):
        return _closed(draft.cut(begin if draft.text[:begin].strip() else end), document, cursor)
    return draft


def _again(lines: list[str], index: int, period: int) -> bool:
    """Whether a line is the one that stands ``period`` lines above, with the same indentation.

    Where nested blocks end, the same closing bracket or ``end`` comes several times, each less indented.
    """
    earlier, line = lines[index - period], lines[index]
    # The first line has the indentation that stands before the cursor.
    return line.strip() == earlier.strip() if index == period else line == earlier


def drop_repetition(draft: Draft, document: Document, cursor: Cursor) -> Draft:
    """The same for an answer that stands for itself: a line that runs in circles is no code, not even the only one."""
    shown = cut_repetition(draft, document, cursor)
    in_line = shown.done and not draft.done and draft.text[len(shown.text) - 1 : len(shown.text) + 1].count("\n") == 0
    return shown.cut(0) if in_line else shown


def circles(text: str) -> bool:
    """Whether the last line of a growing text is a row of one piece that has gone on for too long to be meant."""
    tail = text[text.rfind("\n") + 1 :][-LONGEST_UNIT * (ENDLESS_ROUNDS + 1) :]
    unit, length = _row(tail)
    return length >= max(ENDLESS_CHARACTERS, unit * ENDLESS_ROUNDS)


def _first_round(text: str, start: int) -> int:
    """Where the first round of the row ends with which the line at ``start`` ends; 0 without such a row."""
    found = _IN_LINE.search(text, start)
    if found and any(map(str.isalnum, found[1])):
        return found.end(1)
    unit, length = _row(text[start:])
    return len(text) - length + unit if length >= max(ENDLESS_CHARACTERS, unit * ENDLESS_ROUNDS) else 0


def _row(line: str) -> tuple[int, int]:
    """The piece that a line repeats at its end, as the lengths of one and of all of them; the shortest piece counts."""
    for unit in range(1, min(LONGEST_UNIT, len(line) // ENDLESS_ROUNDS) + 1):
        length = unit
        while length < len(line) and line[-length - 1] == line[-length - 1 + unit]:
            length += 1
        if length >= max(ENDLESS_CHARACTERS, unit * ENDLESS_ROUNDS):
            return unit, length
    return 0, 0


def _closed(draft: Draft, document: Document, cursor: Cursor) -> Draft:
    """Up to the last line end at which nothing is open that the text opened; the whole text if nothing is."""
    for end in reversed([*draft.line_starts()[:-1], len(draft.text)]):
        if len(scan(draft.text[:end], document.language, cursor.state).state.stack) <= len(cursor.state.stack):
            return draft.cut(end)
    return draft
