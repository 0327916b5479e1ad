"""What an instruct model says around code: fences and explanations never reach the editor.

Text inside strings and comments is left alone, and so are documents in which fences are code.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

from peft_core.code.document import Document
from peft_core.code.lexer import scan, without_comment
from peft_core.privacy.values import MASK, secret_values
from peft_daemon.completion.cursor import Cursor
from peft_daemon.completion.postprocess.draft import Draft

MAX_REMARK_CHARACTERS = 4000
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
    if any(_has_remark(line) for line in document.prefix[-MAX_REMARK_CHARACTERS:].split("\n")):
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


# What chat models write below the code that was asked for: an example of how to call it.

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


# No suggestion writes a secret: the text is cut before the line with a value that looks like one.
#
# Such a value is either copied, which shows a secret where nobody asked for it, or made up. The mask that stands for
# secrets in prompts counts as well, unless the document has it too.

_MAX_MASK_CHARACTERS = 8_000
"""Characters on each side of the cursor in which the document's own mask is looked for."""
_GOES_ON = "1aB2cD3eF4gH5iJ6"
"""Stands for what is still to come of a text that was cut off."""


def drop_secrets(draft: Draft, document: Document, _cursor: Cursor) -> Draft:
    """Cut the text before the first line that holds a secret value, or that was cut off inside one."""
    begun = document.line_before
    text = begun + draft.text
    found = [end - 1 for _, end in secret_values(text) if end > len(begun)]
    if draft.truncated:
        probed = secret_values(text + _GOES_ON)
        found += [len(text) - 1 for start, end in probed if start <= len(text) < end and _opens(text[:start])]
    if (mask := _mask(draft.text, cut_off=draft.truncated)) >= 0 and not _has_mask(document):
        found.append(len(begun) + mask)
    if not found:
        return draft
    return draft.cut(draft.text.rfind("\n", 0, max(min(found) - len(begun), 0)) + 1)


def _opens(text: str) -> bool:
    return text.endswith(("'", '"', "`"))


def _mask(text: str, *, cut_off: bool) -> int:
    """Where the mask stands in a text, or its beginning at the end of one that was cut off; -1 for nowhere."""
    at = text.find(MASK)
    if at < 0 and cut_off:
        at = text.rfind(MASK[:2])
        return at if MASK.startswith(text[at:]) else -1
    return at


def _has_mask(document: Document) -> bool:
    return MASK in document.prefix[-_MAX_MASK_CHARACTERS:] or MASK in document.suffix[:_MAX_MASK_CHARACTERS]
