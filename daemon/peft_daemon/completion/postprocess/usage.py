"""What chat models write below the code that was asked for: an example of how to call it."""

from __future__ import annotations

import re
from itertools import pairwise

from peft_core.code.document import Document
from peft_daemon.completion.cursor import Cursor
from peft_daemon.completion.postprocess.draft import Draft

_HEADING = re.compile(r"(?:#|//)\s*(?:example|usage|sample|test)\b", re.I)
_DEFINITION = re.compile(r"^(?:async\s+def|def|class|function|func|fn)\s", re.M)


def drop_usage(draft: Draft, document: Document, cursor: Cursor) -> Draft:
    """The text before a comment at the margin that announces an example, if something was defined before it.

    Decoding stops there: such examples are about half of what the model writes for a sentence.
    """
    for start, end in pairwise(draft.line_starts()):
        if _HEADING.match(draft.text[start:end]) and _DEFINITION.search(draft.text[:start]):
            return draft.cut(len(draft.text[:start].rstrip()) + 1)
    return draft
