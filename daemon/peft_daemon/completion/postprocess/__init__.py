"""Post-processing: from the model's text to the text that is worth showing, one small function per step.

The text of a settled draft always begins with what unsettled drafts of the same answer gave, so it can be shown
while it is written.
"""

from __future__ import annotations

from peft_core.code.document import Document
from peft_daemon.completion.cursor import Cursor
from peft_daemon.completion.postprocess.boundaries import (
    drop_blank,
    drop_comments_above,
    drop_following,
    drop_misfits,
    fit_closing,
    limit_scope,
    one_line,
    whole_lines,
)
from peft_daemon.completion.postprocess.cleanup import (
    Draft,
    Step,
    cut_repetition,
    drop_remarks,
    drop_repetition,
    drop_secrets,
    drop_usage,
    fit_indentation,
    place_at_cursor,
    strip_chat,
    use_document_style,
)

__all__ = ["FILL_STEPS", "INTENT_STEPS", "Draft", "apply"]

FILL_STEPS: tuple[Step, ...] = (
    strip_chat,
    drop_remarks,
    drop_secrets,
    use_document_style,
    one_line,
    cut_repetition,
    drop_following,
    limit_scope,
    fit_closing,
    whole_lines,
    fit_indentation,
    drop_misfits,
    drop_blank,
)
"""For text that goes into a document at the cursor."""

INTENT_STEPS: tuple[Step, ...] = (
    strip_chat,
    drop_secrets,
    drop_comments_above,
    drop_usage,
    drop_repetition,
    whole_lines,
    place_at_cursor,
    drop_blank,
)
"""For an answer to a sentence."""


def apply(steps: tuple[Step, ...], draft: Draft, document: Document, cursor: Cursor) -> Draft:
    """Run the steps; of a draft that may still grow only the complete lines are looked at."""
    if not draft.settled:
        draft = draft.hold(draft.text.rfind("\n") + 1)
    for step in steps:
        draft = step(draft, document, cursor)
    return draft
