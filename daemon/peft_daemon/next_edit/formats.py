"""Prompt formats of next edits: how each model family wants a history of edits and the lines to rewrite written down.

A format is data with an id, shared by serving, tuning and evaluation; an adapter's manifest names the one it was
trained on. ``formats.toml`` has those of the known families.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from importlib import resources

import msgspec

from peft_core.errors import NotFound
from peft_daemon.completion.formats import cut
from peft_daemon.engines.base import Segment


class EditField(StrEnum):
    """A place in a format that a request fills. Texts are of whole lines; line numbers are from 1."""

    PATH = "path"
    FIRST = "first"
    """Number of the first line of the window, or of the edit ..."""
    LAST = "last"
    """... and of the last."""
    FILE = "file"
    """The document around the window, as it was before the history."""
    ABOVE = "above"
    """The document above the window, as it is now ..."""
    BELOW = "below"
    """... and below it."""
    HISTORY = "history"
    """The edits, the oldest first, each written as ``past``."""
    ORIGINAL = "original"
    """The window as it was before the history."""
    CURRENT = "current"
    """The window as it is now, with the cursor's mark if the cursor stands there."""
    OLD = "old"
    """In ``past``: the lines before the edit ..."""
    NEW = "new"
    """... and after it."""
    REMOVED = "removed"
    """The old lines, each behind a minus ..."""
    ADDED = "added"
    """... and the new ones behind a plus."""
    DIFF = "diff"
    """Both with the lines around them, each behind a space."""
    OLD_COUNT = "old_count"
    """How many lines ``old`` has ..."""
    NEW_COUNT = "new_count"
    """... and ``new``."""


EditPiece = Segment | EditField


class EditFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """One way to ask for a next edit; the head of ``formats.toml`` explains the fields."""

    id: str
    family: str
    source: str
    prompt: str
    past: str
    tokens: tuple[str, ...] = ()
    joined: str = ""
    cursor: str
    opening: str = ""
    closing: str = ""
    same: str = ""
    end: str = ""
    stop: tuple[str, ...] = ()

    @cached_property
    def pieces(self) -> tuple[EditPiece, ...]:
        """The prompt, cut at control tokens and fields."""
        return cut(self.prompt, self.tokens, _FIELDS)

    @cached_property
    def past_pieces(self) -> tuple[EditPiece, ...]:
        """One edit of the history, cut in the same way."""
        return cut(self.past, self.tokens, _FIELDS)

    @cached_property
    def fields(self) -> frozenset[EditField]:
        """The fields that the prompt has."""
        return frozenset(each for each in self.pieces if isinstance(each, EditField))

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """All control tokens that a prompt of this format, or the end of its answer, may hold."""
        return tuple(dict.fromkeys((*self.tokens, *((self.end,) if self.end else ()))))


_FIELDS = {f"{{{field}}}": field for field in EditField}


class _EditFormatFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    formats: tuple[EditFormat, ...]


def _read_formats() -> Mapping[str, EditFormat]:
    text = resources.files("peft_daemon.next_edit").joinpath("formats.toml").read_text(encoding="utf-8")
    return {each.id: each for each in msgspec.convert(tomllib.loads(text), _EditFormatFile).formats}


EDIT_FORMATS = _read_formats()
DEFAULT = EDIT_FORMATS["sweep-edit-v1"]
"""The format of adapters that are tuned here."""


def edit_format(format_id: str) -> EditFormat:
    """The format with this id; raises NotFound, naming the known ids."""
    if format_id not in EDIT_FORMATS:
        raise NotFound(
            f"no prompt format '{format_id}' of next edits",
            why=f"known formats: {', '.join(sorted(EDIT_FORMATS))}",
            fix="Correct the id in the model catalogue or the adapter's manifest",
        )
    return EDIT_FORMATS[format_id]
