"""Code of other files for a completion: known chunks at once, new ones when there is time.

Where a request names its workspace, chunks of the other files in it come with the request's own, within a number of
tokens. They change only when the caller says that a change costs nothing: see ``StableContext``. Only folders of this
user are read, and nothing outside of them.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from peft_core.api_types import CompleteRequest, ContextChanged, ContextChunk, ContextStatus
from peft_core.code.document import normalize_newlines
from peft_core.privacy.files import secret_file
from peft_daemon.context.index_client import IndexClient, SelectChunks

ADOPT_WAIT_S = 0.3
"""How long a caller with time on its hands waits for the index; what comes later is adopted the next time."""
MIN_NEW_SHARE = 0.5
"""New chunks are adopted when less than this share of their lines is shown already."""
MAX_DOCUMENTS = 256
"""Documents whose chunks are remembered; the one that was asked for longest ago goes."""
MAX_FOLDERS = 64
MAX_NEAR_CHARACTERS = 64_000
"""Characters on each side of the cursor that are looked at."""


class RepositoryContext:
    """The chunks of all documents of one daemon."""

    def __init__(self, tokens: int) -> None:
        """``tokens`` is the most that a completion is shown; 0: none, and nothing is read."""
        self._tokens = tokens
        self._child = IndexClient()
        self._documents: dict[str, StableContext] = {}
        self._edits: dict[str, tuple[ContextChunk, ...]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def stop(self) -> None:
        """End the process with the indexes."""
        for task in list(self._asking.values()):
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        await self._child.stop()

    async def chunks(self, request: CompleteRequest, *, adopt: bool) -> tuple[ContextChunk, ...]:
        """The request's own chunks and those of its workspace, the same ones in the same order as the last time.

        With ``adopt`` (a warm-up, or a cache that is lost anyway) they may be others, and the call may take
        ``ADOPT_WAIT_S`` seconds; else it waits for nothing.
        """
        given = tuple(request.context)
        root = self._root(request.workspace)
        if root is None:
            return given
        key = request.document or f"{root}:{request.path}"
        if adopt:
            await self._look(key, root, request)
            self._remember(key, self._documents.get(key, StableContext()).adopted())
        return (*given, *self._documents.get(key, StableContext()).shown)

    async def changed(self, told: ContextChanged) -> bool:
        """Take over what an editor tells of a workspace; False where nothing is read of it."""
        root = self._root(told.workspace)
        if root is None:
            return False
        if told.edits is not None:
            self._edits.pop(root, None)
            regions = ((_relative_path(root, each.path), each.text) for each in told.edits)
            self._edits[root] = tuple(
                ContextChunk(path, text) for path, text in regions if path and not secret_file(path)
            )
            while len(self._edits) > MAX_FOLDERS:
                del self._edits[next(iter(self._edits))]
        if paths := [path for each in told.saved if (path := _relative_path(root, each))]:
            await self._child.changed(root, paths)
        return True

    def status(self) -> ContextStatus:
        """A snapshot."""
        return ContextStatus(
            tokens=self._tokens,
            pid=self._child.pid,
            memory_bytes=self._child.memory_bytes(),
            restarts=self._child.restarts,
            workspaces=self._child.workspaces,
        )

    async def _look(self, key: str, root: str, request: CompleteRequest) -> None:
        """Ask the index, and wait a moment for it; a question that is under way for the document is not asked again."""
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(key, root, request))
            task.add_done_callback(lambda _task: self._asking.pop(key, None))
        await asyncio.wait((task,), timeout=ADOPT_WAIT_S)

    async def _ask(self, key: str, root: str, request: CompleteRequest) -> None:
        if not await self._child.open(root):
            return
        question = SelectChunks(
            id=0,
            root=root,
            path=_relative_path(root, request.path or ""),
            before=normalize_newlines(request.prefix[-MAX_NEAR_CHARACTERS:]),
            after=normalize_newlines(request.suffix[:MAX_NEAR_CHARACTERS]),
            edits=list(self._edits.get(root, ())),
            tokens=self._tokens,
        )
        found = await self._child.ask(question)
        if found:
            self._remember(key, self._documents.get(key, StableContext()).offered(found))

    def _remember(self, key: str, state: StableContext) -> None:
        self._documents.pop(key, None)
        self._documents[key] = state
        while len(self._documents) > MAX_DOCUMENTS:
            del self._documents[next(iter(self._documents))]

    def _root(self, workspace: str | None) -> str | None:
        """The folder to be read, without links in its path; None where nothing may be."""
        if not self._tokens or not workspace or "\0" in workspace or not Path(workspace).is_absolute():
            return None
        try:
            folder = Path(workspace).resolve(strict=True)
            owned = sys.platform == "win32" or folder.stat().st_uid == os.getuid()
        except (OSError, RuntimeError):
            return None
        return str(folder) if owned and folder.is_dir() and folder != Path(folder.anchor) else None


def _relative_path(root: str, path: str) -> str:
    """A full path as the index has it; empty for one that is not below the workspace."""
    if not path or "\0" in path:
        return ""
    folder, name = os.path.split(path)
    below = os.path.relpath(Path(os.path.realpath(folder), name), root).replace(os.sep, "/")
    return "" if below.startswith("../") or below in (".", "..") or posixpath.isabs(below) else below


@dataclass(frozen=True)
class StableContext:
    """The chunks of one document: those that prompts have, and those that were found last.

    Chunks stand at the beginning of a prompt, so that each change makes the engine read the whole prompt anew. While
    somebody types they stay as they are. New ones are adopted when the prompt is read in idle time anyway, and only if
    they are mostly new.
    """

    shown: tuple[ContextChunk, ...] = ()
    found: tuple[ContextChunk, ...] | None = None

    def offered(self, found: Sequence[ContextChunk]) -> StableContext:
        """With chunks that were found; what is shown stays."""
        return replace(self, found=tuple(found))

    def adopted(self) -> StableContext:
        """With what was found last, if that is mostly new; as it is if nothing was found since."""
        if self.found is None:
            return self
        return StableContext(self.found if _mostly_new(self.found, self.shown) else self.shown)


def _mostly_new(found: Sequence[ContextChunk], shown: Sequence[ContextChunk]) -> bool:
    known = {(each.path, line) for each in shown for line in each.text.split("\n") if line.strip()}
    lines = [(each.path, line) for each in found for line in each.text.split("\n") if line.strip()]
    return sum(line in known for line in lines) < MIN_NEW_SHARE * len(lines)
