"""What the index process does, with low priority, so that indexing never delays the daemon.

It reads requests from stdin and writes replies to stdout (``index_client`` defines both), until stdin closes. Files are
read one at a time, and requests are answered in between. An error in one workspace is reported and does not affect the
others.
"""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import BinaryIO, NoReturn

import msgspec

from peft_core.child_main import CommandReader
from peft_core.code.files import list_workspace
from peft_core.code.imports import RelatedFiles
from peft_core.errors import PeftDaemonError
from peft_core.status_types import IndexState, WorkspaceStatus
from peft_daemon.context.index import Index
from peft_daemon.context.index_client import (
    FilesChanged,
    IndexProgress,
    IndexReply,
    IndexRequest,
    SelectChunks,
    SelectedChunks,
)
from peft_daemon.context.selection import SelectionLimits, SelectionQuery, select_chunks

MAX_WORKSPACES = 4
"""Workspaces that are kept; the least recently used one is dropped."""
MAX_LISTING_AGE_S = 20.0
"""How long a listing of files is used, unless an editor reports an unknown file."""
PROGRESS_INTERVAL_S = 0.5
NICENESS = 10


class IndexedWorkspace:
    """One folder: its index, and the files that have yet to be read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.index = Index(root)
        self.related = RelatedFiles((), lambda _path: "")
        self.error = ""
        self._unread: deque[str] = deque()
        self._listed_at = float("-inf")
        self._reported_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether there are files to read."""
        return bool(self._unread)

    def refresh(self) -> None:
        """List the files, unless the listing is recent; changed files are queued to be read."""
        if time.monotonic() - self._listed_at < MAX_LISTING_AGE_S:
            return
        try:
            self._unread = deque(self.index.set_listing(list_workspace(self.root)))
            self.error = ""
        except (PeftDaemonError, OSError) as error:
            self.error = error.line if isinstance(error, PeftDaemonError) else str(error)
        self.related = RelatedFiles(self.index.paths, self.index.text)
        self._listed_at = time.monotonic()

    def update(self, paths: list[str]) -> None:
        """Read changed files again. If one is new, all are listed again, as it may be an ignored one."""
        known = set(self.index.paths)
        for path in paths:
            if path in known:
                self.index.update(path)
            else:
                self._listed_at = float("-inf")
        self.refresh()

    def read_next(self) -> None:
        """Read one file; after the last one, compact the index."""
        self.index.update(self._unread.popleft())
        if not self._unread:
            self.index.compact()

    def progress_due(self) -> bool:
        """Whether progress should be reported now; always true when all files are read."""
        if self._unread and time.monotonic() - self._reported_at < PROGRESS_INTERVAL_S:
            return False
        self._reported_at = time.monotonic()
        return True

    def status(self) -> WorkspaceStatus:
        """Return the state of the index and how far it has read."""
        state = IndexState.FAILED if self.error else IndexState.READING if self._unread else IndexState.READY
        return WorkspaceStatus(
            root=str(self.root),
            state=state,
            files=self.index.files,
            of=len(self.index.paths),
            passages=self.index.passages,
            left_out=self.index.left_out,
            why=self.error,
        )


class IndexServer:
    """Answers requests for all workspaces, and reads their files in between."""

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self._workspaces: dict[str, IndexedWorkspace] = {}
        """The most recently used one last."""

    @property
    def busy(self) -> bool:
        """Whether there are files to read between requests."""
        return any(each.busy for each in self._workspaces.values())

    def handle(self, request: IndexRequest) -> None:
        """Answer a request; a workspace that is not open is opened."""
        workspace = self._workspace(request.root)
        if isinstance(request, SelectChunks):
            query = SelectionQuery(
                request.path, request.before, request.after, request.shown_before, request.shown_after
            )
            limits = SelectionLimits.of_tokens(request.tokens)
            chunks = select_chunks(workspace.index, workspace.related, query, request.edits, limits)
            self._write(SelectedChunks(request.id, list(chunks)))
            return
        if isinstance(request, FilesChanged):
            workspace.update(request.paths)
        else:
            workspace.refresh()
        self._write(IndexProgress(workspace.status()))

    def read_next(self) -> None:
        """Read one file, of the most recently used workspace that has any to read."""
        workspace = next(each for each in reversed(self._workspaces.values()) if each.busy)
        workspace.read_next()
        if workspace.progress_due():
            self._write(IndexProgress(workspace.status()))

    def _workspace(self, root: str) -> IndexedWorkspace:
        found = self._workspaces.pop(root, None)
        if found is None:
            found = IndexedWorkspace(Path(root))
            found.refresh()
        self._workspaces[root] = found
        while len(self._workspaces) > MAX_WORKSPACES:
            del self._workspaces[next(iter(self._workspaces))]
        return found

    def _write(self, reply: IndexReply) -> None:
        self._output.write(msgspec.json.encode(reply) + b"\n")
        self._output.flush()


def serve(commands: CommandReader, output: BinaryIO) -> NoReturn:
    """Answer requests and read files in between."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    server = IndexServer(output)
    decoder = msgspec.json.Decoder(IndexRequest)
    while True:
        line = commands.waiting() if server.busy else commands.next()
        if line is None:
            server.read_next()
        else:
            server.handle(decoder.decode(line))
