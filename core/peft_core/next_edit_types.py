"""What travels for next edits: what was changed lately, where the cursor stands, and the change that is suggested.

Lines are counted from 0. A text of *whole lines* ends each of them with ``\\n``, so no line is the empty text and an
empty line is ``"\\n"``; the last line of a document is written so too, whether it has a line end or not.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from peft_core.api_types import AdapterUse, Confidence, Eagerness, Milliseconds, Name, ShortText, Text, Timings

LONGEST_PAST_EDIT = 4_000
"""Characters of either side of an edit in the history."""
MOST_PAST_EDITS = 16
MOST_DIAGNOSTICS = 32
LONGEST_DIAGNOSTIC = 500

LineIndex = Annotated[int, Meta(ge=0, le=10_000_000)]
EditText = Annotated[str, Meta(max_length=LONGEST_PAST_EDIT)]


class PastEdit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A change that the user made: whole lines that took the place of others."""

    path: ShortText
    start: LineIndex
    """The first of the new lines, in the document as it is now."""
    old: EditText
    new: EditText


class Diagnostic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the editor's own tools say of lines of the document."""

    start: LineIndex
    end: LineIndex
    """The last of them."""
    message: Annotated[str, Meta(max_length=LONGEST_DIAGNOSTIC)]


class NextEditRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /v1/next-edit``."""

    text: Text
    """The whole document."""
    line: LineIndex
    """The cursor's line ..."""
    column: LineIndex
    """... and how many characters stand before it there."""
    edits: Annotated[list[PastEdit], Meta(max_length=MOST_PAST_EDITS)] = []
    """The oldest first. Without one there is nothing that an edit could follow from."""
    diagnostics: Annotated[list[Diagnostic], Meta(max_length=MOST_DIAGNOSTICS)] = []
    language: Name = "python"
    path: ShortText | None = None
    """Path of the document on this machine; picks the repository's adapter. Never opened by the daemon."""
    workspace: ShortText | None = None
    """Absolute path of the folder the document belongs to."""
    document: ShortText | None = None
    """Key for "newest request wins"; any completion for the same document goes first as well."""
    eagerness: Eagerness | None = None
    """Suggest nothing that the model is too unsure of; null: nothing is left out for that."""
    adapter: Name | None = None
    """Name or digest; ``base`` for none; null to let the daemon pick by path."""
    time_budget_ms: Milliseconds | None = None


class SuggestedEdit(msgspec.Struct, frozen=True, kw_only=True):
    """Whole lines of the document and what is suggested in their place."""

    start: LineIndex
    """The first line that changes."""
    old: str
    """The lines that are replaced, to be compared with the document before the edit is shown."""
    new: str
    why: str
    """Why it was looked for there, in words."""


class EditSilence(StrEnum):
    """Why no edit is suggested."""

    NO_HISTORY = "no_history"
    """Nothing was changed lately."""
    UNCHANGED = "unchanged"
    """The model writes the lines again as they are."""
    UNSURE = "unsure"
    """The model's edit is less likely right than the eagerness asks for."""
    REVERSAL = "reversal"
    """The edit would undo what was just typed."""
    BROKEN = "broken"
    """The answer was cut off, does not fit the lines that were shown, or no longer parses."""
    NO_FORMAT = "no_format"
    """Neither the model nor an adapter in use was made for next edits."""
    OFF = "off"
    """Suggestions are off in such a document."""
    SUPERSEDED = "superseded"
    """A newer request for the document came."""
    TIMEOUT = "timeout"
    """The time was over."""


class NextEditResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The edit that is suggested, or why none is."""

    id: str
    edit: SuggestedEdit | None = None
    silence: EditSilence | None = None
    detail: str = ""
    """More about the silence, in words."""
    confidence: Confidence | None = None
    """How likely the edit that the model wrote is right, also where it is not suggested for that."""
    tokens: int = 0
    """Tokens of the lines that this edit changes, whose probabilities the confidence follows from ..."""
    log_probability: float | None = None
    """... and the sum of their log-probabilities; null: no model wrote it, or the engine does not tell them."""
    model: str = ""
    adapter: AdapterUse | None = None
    timings: Timings = Timings()
