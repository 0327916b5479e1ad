"""Next edits that need no model: a word that the user put in place of another, put in its place elsewhere too.

Where an edit replaced every ``old`` of its lines by ``new``, the other lines of the document that have ``old`` are
likely to get ``new`` as well: the uses of what was renamed. The nearest run of such lines is suggested.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import SequenceMatcher

from peft_core.code.edits import LineChange
from peft_daemon.next_edit.moment import Moment

MIN_WORD = 3
"""Characters of a word that is replaced; shorter ones mean something else elsewhere."""
_TOKEN = re.compile(r"[A-Za-z_]\w*|\s+|.")


def renamed_words(change: LineChange) -> Mapping[str, str]:
    """Return the words that a change replaced by others wherever its lines had them; empty if it did more."""
    old, new = (_TOKEN.findall("\n".join(side)) for side in (change.old, change.new))
    words: dict[str, str] = {}
    for tag, old_start, old_end, new_start, new_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        before, after = old[old_start:old_end], new[new_start:new_end]
        if tag != "replace" or len(before) != len(after):
            return {}
        for one, other in zip(before, after, strict=True):
            if one == other:
                continue
            if not (one.isidentifier() and other.isidentifier() and words.setdefault(one, other) == other):
                return {}
    return {} if set(words) & set(new) or any(len(each) < MIN_WORD for each in words) else words


def renaming(moment: Moment) -> LineChange | None:
    """Return the nearest lines that still have a word which the newest edit replaced, with the new one; None if none.

    Lines below the cursor come before those above it.
    """
    if not moment.edits:
        return None
    words = renamed_words(moment.edits[-1].change)
    if not words:
        return None
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))})\b")
    changed = [each.change for each in moment.edits if each.here]

    def applies(at: int) -> bool:
        inside = any(each.start <= at < each.new_end for each in changed)
        return not inside and pattern.search(moment.lines[at]) is not None

    below = range(moment.line + 1, len(moment.lines))
    first = next((at for at in (*below, *range(moment.line, -1, -1)) if applies(at)), None)
    if first is None:
        return None
    while first > 0 and applies(first - 1):
        first -= 1
    last = first
    while last + 1 < len(moment.lines) and applies(last + 1):
        last += 1
    old = moment.lines[first : last + 1]
    return LineChange(first, old, tuple(pattern.sub(lambda found: words[found[0]], line) for line in old))
