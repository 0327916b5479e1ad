"""A model that runs in circles: the text is cut after the first round.

Within a line that is only believed of a text that was cut off: a model that ended its row of zeros meant it.
"""

from __future__ import annotations

import re
from itertools import pairwise

from peft_daemon.completion.cursor import Cursor
from peft_daemon.completion.document import Document
from peft_daemon.completion.postprocess.draft import Draft

LONGEST_PERIOD = 6
"""Lines in the longest round that is looked for."""
ROUNDS = 3
"""How often lines must occur in a row to count as running in circles."""
_IN_LINE = re.compile(r"(.{4,60}?)\1{3,}.{0,60}\Z", re.DOTALL)


def cut_repetition(draft: Draft, _document: Document, _cursor: Cursor) -> Draft:
    """Cut a text whose last lines, or whose last line's pieces, repeat without end."""
    starts = draft.line_starts()
    lines = [draft.text[a:b].strip() for a, b in pairwise(starts)]
    held = len(lines)
    for period in range(1, min(LONGEST_PERIOD, len(lines)) + 1):
        run = 0
        for index in range(period, len(lines)):
            run = run + 1 if lines[index] == lines[index - period] else 0
            if run >= period * (ROUNDS - 1) and any(lines[index - period + 1 : index + 1]):
                return draft.cut(starts[index - run + 1])
        held = min(held, len(lines) - run)
    if not draft.settled:
        # The beginning of what may turn out to be another round.
        return draft.hold(starts[held])
    if draft.truncated:
        tail = _IN_LINE.search(draft.text, starts[-2] if len(starts) > 1 else 0)
        if tail and any(map(str.isalnum, tail[1])):
            return draft.cut(tail.end(1))
    return draft
