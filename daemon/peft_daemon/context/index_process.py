"""The process that holds the indexes of workspaces, with low priority, so that reading never delays the daemon.

It reads requests from stdin and writes replies to stdout (``index_client`` has both), and lives until stdin closes.
Requests go before reading, which is done one file at a time. A failure in one workspace is reported and changes nothing
in others.
"""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import BinaryIO, NoReturn

import msgspec

from peft_core.api_types import IndexState, WorkspaceStatus
from peft_core.child_main import CommandReader, run_child
from peft_core.code.files import list_workspace
from peft_core.code.imports import RelatedFiles
from peft_core.errors import PeftDaemonError
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
"""The one that was asked for longest ago goes."""
LISTING_AGE_S = 20.0
"""How long a listing of files is believed, unless an editor says otherwise."""
PROGRESS_INTERVAL_S = 0.5
NICENESS = 10


class IndexedWorkspace:
    """One folder: its index, and the files that are still to be read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.index = Index(root)
        self.related = RelatedFiles((), lambda _path: "")
        self.failed = ""
        self._waiting: deque[str] = deque()
        self._listed_at = float("-inf")
        self._told_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether there are files to read."""
        return bool(self._waiting)

    def look(self) -> None:
        """List the files, unless that was done just now; those that changed wait to be read."""
        if time.monotonic() - self._listed_at < LISTING_AGE_S:
            return
        try:
            self._waiting = deque(self.index.listed(list_workspace(self.root)))
            self.failed = ""
        except (PeftDaemonError, OSError) as error:
            self.failed = error.line if isinstance(error, PeftDaemonError) else str(error)
        self.related = RelatedFiles(self.index.paths, self.index.text)
        self._listed_at = time.monotonic()

    def changed(self, paths: list[str]) -> None:
        """Read files anew; where one is new, all are listed again: it may be one that is ignored."""
        known = set(self.index.paths)
        for path in paths:
            if path in known:
                self.index.update(path)
            else:
                self._listed_at = float("-inf")
        self.look()

    def step(self) -> None:
        """Read one file, or tidy up after the last."""
        self.index.update(self._waiting.popleft())
        if not self._waiting:
            self.index.tidy()

    def due(self) -> bool:
        """Whether it is time to tell of it; at the end always."""
        if self._waiting and time.monotonic() - self._told_at < PROGRESS_INTERVAL_S:
            return False
        self._told_at = time.monotonic()
        return True

    def status(self) -> WorkspaceStatus:
        """How far it is."""
        state = IndexState.FAILED if self.failed else IndexState.READING if self._waiting else IndexState.READY
        return WorkspaceStatus(
            root=str(self.root),
            state=state,
            files=self.index.files,
            of=len(self.index.paths),
            passages=self.index.passages,
            left_out=self.index.left_out,
            why=self.failed,
        )


class IndexServer:
    """All workspaces, the last one asked for at the end."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._workspaces: dict[str, IndexedWorkspace] = {}

    @property
    def busy(self) -> bool:
        """Whether there is something to do between orders."""
        return any(each.busy for each in self._workspaces.values())

    def obey(self, order: IndexRequest) -> None:
        """Do what is asked; a workspace that was let go is opened again."""
        workspace = self._workspace(order.root)
        if isinstance(order, SelectChunks):
            question = SelectionQuery(order.path, order.before, order.after)
            recipe = SelectionLimits.of_tokens(order.tokens)
            chunks = select_chunks(workspace.index, workspace.related, question, order.edits, recipe)
            self._write(SelectedChunks(order.id, list(chunks)))
            return
        if isinstance(order, FilesChanged):
            workspace.changed(order.paths)
        else:
            workspace.look()
        self._write(IndexProgress(workspace.status()))

    def work(self) -> None:
        """One step of what is to be done between orders, for the workspace that was asked for last."""
        workspace = next(each for each in reversed(self._workspaces.values()) if each.busy)
        workspace.step()
        if workspace.due():
            self._write(IndexProgress(workspace.status()))

    def _workspace(self, root: str) -> IndexedWorkspace:
        found = self._workspaces.pop(root, None)
        if found is None:
            found = IndexedWorkspace(Path(root))
            found.look()
        self._workspaces[root] = found
        while len(self._workspaces) > MAX_WORKSPACES:
            del self._workspaces[next(iter(self._workspaces))]
        return found

    def _write(self, report: IndexReply) -> None:
        self._answers.write(msgspec.json.encode(report) + b"\n")
        self._answers.flush()


def main() -> None:
    """Serve until stdin closes."""
    run_child(serve)


def serve(commands: CommandReader, answers: BinaryIO) -> NoReturn:
    """Obey orders and read files in between."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    worker = IndexServer(answers)
    decoder = msgspec.json.Decoder(IndexRequest)
    while True:
        line = commands.waiting() if worker.busy else commands.next()
        if line is None:
            worker.work()
        else:
            worker.obey(decoder.decode(line))


if __name__ == "__main__":
    main()
