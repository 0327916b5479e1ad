"""No suggestion writes a secret: the text is cut before the line with a value that looks like one.

Such a value is either copied, which shows a secret where nobody asked for it, or made up. The mask that stands for
secrets in prompts counts as well, unless the document has it too.
"""

from __future__ import annotations

from peft_core.code.document import Document
from peft_core.privacy.values import MASK, secret_values
from peft_daemon.completion.cursor import Cursor
from peft_daemon.completion.postprocess.draft import Draft

_NEAR = 8_000
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
    return MASK in document.prefix[-_NEAR:] or MASK in document.suffix[:_NEAR]
