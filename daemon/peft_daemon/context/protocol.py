"""What clients tell of a workspace, and what the daemon says of its index. Imports nothing of the daemon."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

LONGEST_EDIT = 2_000
"""Characters of one edited region."""
MOST_EDITS = 8
MOST_SAVED = 256

FullPath = Annotated[str, Meta(min_length=1, max_length=4096)]


class EditedRegion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lines of an open file that were edited a short while ago, as they are now."""

    path: FullPath
    text: Annotated[str, Meta(min_length=1, max_length=LONGEST_EDIT)]


class ContextChanged(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /v1/context/changed``: what an editor did in one workspace. Paths are absolute."""

    workspace: FullPath
    saved: Annotated[list[FullPath], Meta(max_length=MOST_SAVED)] = []
    """Files that were written, made or deleted: the index reads them anew."""
    edits: Annotated[list[EditedRegion], Meta(max_length=MOST_EDITS)] | None = None
    """All regions that were edited lately, the newest first; they replace those told before. Null: as before."""


class ContextResponse(msgspec.Struct, frozen=True):
    """Answer of ``POST /v1/context/changed``."""

    taken: bool
    """False where the daemon shows no code of other files (setting ``repository_context``), or not of this folder."""


class IndexState(StrEnum):
    """How far the index of a workspace is."""

    WAITING = "waiting"
    READING = "reading"
    """Not all files are in it yet; what is there is used."""
    READY = "ready"
    FAILED = "failed"


class WorkspaceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The index of one workspace."""

    root: str
    state: IndexState
    files: int = 0
    of: int = 0
    passages: int = 0
    left_out: int = 0
    """Files beyond the bounds of an index."""
    why: str = ""
    """Where it failed."""


class ContextStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Code of other files, as ``GET /v1/status`` tells of it."""

    tokens: int
    """Most that a completion is shown; 0: none."""
    pid: int | None = None
    """Of the process that has the indexes; null: none runs."""
    memory_bytes: int = 0
    """Of that process."""
    restarts: int = 0
    workspaces: list[WorkspaceStatus] = []
