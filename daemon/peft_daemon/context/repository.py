"""Code of other files for a completion: known chunks at once, new ones when there is time.

If a request names its workspace, chunks of the other files in it are added to the request's own, up to a number of
tokens. They change only when the caller allows it; ``StableContext`` says why. Only folders that belong to this user
are read, and nothing outside of them.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from peft_core.api_types import CompleteRequest, ContextChanged, ContextChunk
from peft_core.code.document import normalize_newlines
from peft_core.privacy.files import secret_file
from peft_core.status_types import ContextStatus
from peft_daemon.context.index_client import IndexClient, SelectChunks

ADOPT_WAIT_S = 0.3
"""How long a caller that allows a change waits for the index; later chunks are adopted the next time."""
MAX_KNOWN_SHARE = 0.5
"""New chunks are adopted when less than this share of their lines is shown already."""
MAX_DOCUMENTS = 256
"""Documents whose chunks are remembered; the least recently used one is dropped."""
MAX_WORKSPACES_WITH_EDITS = 64
MAX_QUERY_CHARACTERS = 64_000
"""Characters on each side of the cursor that chunks are selected by."""


class RepositoryContext:
    """The chunks of all documents of one daemon."""

    def __init__(self, tokens_at: Callable[[str], int]) -> None:
        """``tokens_at`` tells the most for one completion of a file or below a folder; with 0 nothing is read."""
        self._tokens_at = tokens_at
        self._index = IndexClient()
        self._documents: dict[str, StableContext] = {}
        self._edits: dict[str, tuple[ContextChunk, ...]] = {}
        self._queries: dict[str, asyncio.Task[None]] = {}

    async def stop(self) -> None:
        """End the index process."""
        for task in list(self._queries.values()):
            task.cancel()
        await asyncio.gather(*self._queries.values(), return_exceptions=True)
        await self._index.stop()

    async def chunks(
        self, request: CompleteRequest, shown: tuple[int, int], *, adopt: bool
    ) -> tuple[ContextChunk, ...]:
        """Return the request's own chunks and those of its workspace, the same and in the same order as last time.

        ``shown`` are the characters before and behind the cursor that the prompt shows. With ``adopt`` (for a warm-up,
        or if the KV cache is lost anyway) chunks may change, and the call may wait ``ADOPT_WAIT_S`` for the index;
        otherwise it does not wait.
        """
        given = tuple(request.context)
        tokens = self._tokens_at(request.path or request.workspace or "") if request.workspace else 0
        root = _own_folder(request.workspace) if tokens else None
        if root is None:
            return given
        key = request.document or f"{root}:{request.path}"
        if adopt:
            await self._query(key, root, request, shown, tokens)
            self._remember(key, self._documents.get(key, StableContext()).adopted())
        return (*given, *self._documents.get(key, StableContext()).shown)

    async def changed(self, told: ContextChanged) -> bool:
        """Use what an editor reports of a workspace (``told``); returns False if the workspace may not be read."""
        files = (*told.saved, *(each.path for each in told.edits or ()))
        root = _own_folder(told.workspace) if any(map(self._tokens_at, (told.workspace, *files))) else None
        if root is None:
            return False
        if told.edits is not None:
            self._edits.pop(root, None)
            regions = ((_relative_path(root, each.path), each.text) for each in told.edits)
            self._edits[root] = tuple(
                ContextChunk(path, text) for path, text in regions if path and not secret_file(path)
            )
            while len(self._edits) > MAX_WORKSPACES_WITH_EDITS:
                del self._edits[next(iter(self._edits))]
        if paths := [path for each in told.saved if (path := _relative_path(root, each))]:
            await self._index.report_changes(root, paths)
        return True

    def status(self) -> ContextStatus:
        """Return the state of the index process and its indexes."""
        return ContextStatus(
            tokens=max(map(self._tokens_at, ("", *(each.root for each in self._index.workspaces)))),
            pid=self._index.pid,
            memory_bytes=self._index.memory_bytes(),
            restarts=self._index.restarts,
            workspaces=self._index.workspaces,
        )

    async def _query(self, key: str, root: str, request: CompleteRequest, shown: tuple[int, int], tokens: int) -> None:
        """Query the index and wait up to ``ADOPT_WAIT_S``; a document has one query at a time."""
        task = self._queries.get(key)
        if task is None:
            task = self._queries[key] = asyncio.create_task(self._find(key, root, request, shown, tokens))
            task.add_done_callback(lambda _task: self._queries.pop(key, None))
        await asyncio.wait((task,), timeout=ADOPT_WAIT_S)

    async def _find(self, key: str, root: str, request: CompleteRequest, shown: tuple[int, int], tokens: int) -> None:
        if not await self._index.open(root):
            return
        query = SelectChunks(
            id=0,
            root=root,
            path=_relative_path(root, request.path or ""),
            before=normalize_newlines(request.prefix[-MAX_QUERY_CHARACTERS:]),
            after=normalize_newlines(request.suffix[:MAX_QUERY_CHARACTERS]),
            shown_before=shown[0],
            shown_after=shown[1],
            edits=list(self._edits.get(root, ())),
            tokens=tokens,
        )
        found = await self._index.select(query)
        if found:
            self._remember(key, self._documents.get(key, StableContext()).with_found(found))

    def _remember(self, key: str, state: StableContext) -> None:
        self._documents.pop(key, None)
        self._documents[key] = state
        while len(self._documents) > MAX_DOCUMENTS:
            del self._documents[next(iter(self._documents))]


def _own_folder(workspace: str | None) -> str | None:
    """Return the workspace's path without links; None if it may not be read."""
    if not workspace or "\0" in workspace or not Path(workspace).is_absolute():
        return None
    try:
        folder = Path(workspace).resolve(strict=True)
        owned = sys.platform == "win32" or folder.stat().st_uid == os.getuid()
    except (OSError, RuntimeError):
        return None
    return str(folder) if owned and folder.is_dir() and folder != Path(folder.anchor) else None


def _relative_path(root: str, path: str) -> str:
    """Return an absolute path relative to the workspace; empty if it is not in the workspace."""
    if not path or "\0" in path:
        return ""
    folder, name = os.path.split(path)
    below = os.path.relpath(Path(os.path.realpath(folder), name), root).replace(os.sep, "/")
    return "" if below.startswith("../") or below in (".", "..") or posixpath.isabs(below) else below


@dataclass(frozen=True)
class StableContext:
    """The chunks of one document: those that its prompts contain, and those found last.

    Chunks stand at the beginning of a prompt, so every change makes the engine read the whole prompt again. Therefore
    they do not change while somebody types. Found chunks are adopted when the prompt is read in idle time, and only if
    most of their lines are new.
    """

    shown: tuple[ContextChunk, ...] = ()
    found: tuple[ContextChunk, ...] | None = None

    def with_found(self, found: Sequence[ContextChunk]) -> StableContext:
        """Return it with newly found chunks; those in prompts stay."""
        return replace(self, found=tuple(found))

    def adopted(self) -> StableContext:
        """Return it with the chunks found last in prompts, if most of their lines are new."""
        if self.found is None:
            return self
        return StableContext(self.found if _mostly_new(self.found, self.shown) else self.shown)


def _mostly_new(found: Sequence[ContextChunk], shown: Sequence[ContextChunk]) -> bool:
    known = {(each.path, line) for each in shown for line in each.text.split("\n") if line.strip()}
    lines = [(each.path, line) for each in found for line in each.text.split("\n") if line.strip()]
    return sum(line in known for line in lines) < MAX_KNOWN_SHARE * len(lines)
