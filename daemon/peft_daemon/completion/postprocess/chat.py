"""What an instruct model says around code: fences and explanations never reach the editor.

Text inside strings and comments is left alone, and so are documents in which fences are code.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

from peft_core.code.document import Document
from peft_core.code.lexer import scan, without_comment
from peft_daemon.completion.cursor import Cursor
from peft_daemon.completion.postprocess.draft import Draft

NEARBY = 4000
"""Characters before the cursor in which the document's own comments are looked for."""
PROSE_LANGUAGES = frozenset({"markdown", "restructuredtext", "plaintext", "latex", "html", "asciidoc"})
_FENCE = re.compile(r"[ \t]*```[^\n`]*$")
# A sentence or heading of the kind a chat model puts before and after code, and the demonstrations it adds.
_EXPLANATION = re.compile(
    r"""[ \t]*(?:
        \#{2,4}[ ]\w.* | \*\*\w.* | (?:Explanation|Output|Example|Note|Usage)s?\b[^=(]*:[ ]*
        |(?=[^\n]*\b(?:the|an?|to|of|you|is|are|this|that|it|in|with|for)\b)[A-Z][\w']*,?(?:[ ][^\n=]*){4,}[.:!?]
        |\#[ ]*(?:Example|Sample|Test)\b[^\n]*
    )[ \t]*$""",
    re.VERBOSE,
)


def strip_chat(draft: Draft, document: Document, cursor: Cursor) -> Draft:
    """Only the code: what a fence holds with which the answer begins, or what comes before a fence or explanation."""
    if document.language in PROSE_LANGUAGES or not cursor.state.code:
        return draft
    text, state = draft.text, cursor.state
    goes_on = bool(document.line_before.strip())
    begin = 0
    began = fenced = False
    for start, end in pairwise(draft.line_starts()):
        line = text[start:end].rstrip("\n")
        fence = state.code and _FENCE.match(line) is not None
        explains = state.code and not (goes_on and start == 0) and _EXPLANATION.match(line) is not None
        if not began:
            if fence or explains:
                begin, fenced, began = end, fence, fence
                continue
            began = goes_on or bool(line.strip())  # the line of the cursor ends what it goes on with
        elif fence or (explains and not fenced):
            return replace(draft, text=text[begin:start], done=True)
        state = scan(text[start:end], document.language, state).state
    return replace(draft, text=text[begin:])


def drop_remarks(draft: Draft, document: Document, cursor: Cursor) -> Draft:
    """Without comments at the end of lines of code (``# Output: 5``) where the document has none of its own."""
    if "#" not in draft.text or document.language != "python" or not cursor.state.code:
        return draft
    if any(_has_remark(line) for line in document.prefix[-NEARBY:].split("\n")):
        return draft
    state, lines = cursor.state, draft.text.split("\n")
    for index, line in enumerate(lines):
        before = document.line_before if index == 0 else ""
        code = without_comment(line, document.language, state)
        if (before + code).strip():
            lines[index] = code if code != line.rstrip() else line
        state = scan(line + "\n", document.language, state).state
    return replace(draft, text="\n".join(lines))


def _has_remark(line: str) -> bool:
    code = without_comment(line, "python")
    return bool(code.strip()) and code != line.rstrip()
