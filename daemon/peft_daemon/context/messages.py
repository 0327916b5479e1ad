"""What the daemon and the process with the indexes say to each other: one JSON value a line."""

from __future__ import annotations

import msgspec

from peft_core.api_types import ContextChunk, WorkspaceStatus


class Open(msgspec.Struct, frozen=True, tag="open"):
    """Have an index of a workspace, and look whether its files changed."""

    root: str


class Changed(msgspec.Struct, frozen=True, tag="changed"):
    """Read these files anew; ``paths`` are relative to the workspace."""

    root: str
    paths: list[str]


class Ask(msgspec.Struct, frozen=True, tag="ask", kw_only=True):
    """Choose chunks for a cursor in a workspace that was opened."""

    id: int
    root: str
    path: str
    """Relative to the workspace; empty for a document that is no file of it."""
    before: str
    after: str
    edits: list[ContextChunk]
    tokens: int


class Chosen(msgspec.Struct, frozen=True, tag="chosen"):
    """The answer to an Ask."""

    id: int
    chunks: list[ContextChunk]


class Told(msgspec.Struct, frozen=True, tag="told"):
    """How far an index is; said now and then, unasked."""

    status: WorkspaceStatus


Order = Open | Changed | Ask
Report = Chosen | Told
