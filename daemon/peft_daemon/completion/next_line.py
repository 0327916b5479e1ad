"""What an editor writes when Enter is pressed behind a finished line: where the next suggestion will be wanted."""

from __future__ import annotations

from peft_core.code.document import Document
from peft_core.code.lexer import without_comment
from peft_daemon.completion.cursor import Cursor, opens_block
from peft_daemon.completion.postprocess.indentation import level

_LEAVES = ("return", "raise", "break", "continue", "pass")


def enter(document: Document, cursor: Cursor) -> str | None:
    """The line end and the indentation of the next line; None where the cursor's line is not at its end.

    Nor inside brackets and strings, where editors differ, nor below a statement that ends its block, where some
    indent less.
    """
    line = document.line_before
    if not line.strip() or document.line_after.strip() or not cursor.state.code or cursor.state.stack:
        return None
    words = without_comment(line, document.language).split()
    if words and words[0] in _LEAVES:
        return None
    deeper = level(document) if opens_block(line, document.language) else ""
    return "\n" + document.indentation + deeper
