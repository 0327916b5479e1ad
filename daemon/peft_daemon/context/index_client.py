"""The daemon's side of the index process: its messages, its start when first needed, and its restart after a crash.

Each message is a line of JSON. A process that crashes loses its indexes; the next one builds them again for the
workspaces that are asked for. A process that hangs is killed. After ``MAX_CRASHES`` in a row, no process is started for
``RETRY_S`` seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import logging

import msgspec

from peft_core.api_types import ContextChunk
from peft_core.child_process import ChildGone, ChildProcess
from peft_core.status_types import IndexState, WorkspaceStatus

MODULE = "peft_daemon.context.index_process"
MAX_CRASHES = 3
"""Crashes in a row, without an answer in between."""
RETRY_S = 600.0
"""How long no process is started after ``MAX_CRASHES``."""
HANG_CHECK_S = 5.0
"""How often a process that owes an answer is checked."""
MAX_SILENCE_S = 60.0
"""A process that owes an answer and reports nothing for this long hangs. It is long because of its low priority."""

log = logging.getLogger(__name__)


class OpenWorkspace(msgspec.Struct, frozen=True, tag="open"):
    """Index a workspace, or look for changed files if it is indexed already."""

    root: str


class FilesChanged(msgspec.Struct, frozen=True, tag="changed"):
    """Read these files again; ``paths`` are relative to the workspace."""

    root: str
    paths: list[str]


class SelectChunks(msgspec.Struct, frozen=True, tag="ask", kw_only=True):
    """Select chunks for a cursor in a workspace."""

    id: int
    root: str
    path: str
    """Relative to the workspace; empty for a document that is not a file in it."""
    before: str
    after: str
    shown_before: int
    """Characters before the cursor that the prompt shows, and behind it."""
    shown_after: int
    edits: list[ContextChunk]
    tokens: int


class SelectedChunks(msgspec.Struct, frozen=True, tag="chosen"):
    """The answer to ``SelectChunks``."""

    id: int
    chunks: list[ContextChunk]


class IndexProgress(msgspec.Struct, frozen=True, tag="told"):
    """Progress of an index, sent from time to time without a request."""

    status: WorkspaceStatus


IndexRequest = OpenWorkspace | FilesChanged | SelectChunks
IndexReply = SelectedChunks | IndexProgress


class IndexClient:
    """Starts and asks the process that indexes all workspaces."""

    def __init__(self) -> None:
        self.restarts = 0
        self._process: ChildProcess | None = None
        self._listener: asyncio.Task[None] | None = None
        self._send_lock = asyncio.Lock()
        self._crashes = 0
        self._crashed_at = 0.0
        self._replies = 0
        self._stopped = False
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[list[ContextChunk]]] = {}
        self._workspaces: dict[str, WorkspaceStatus] = {}

    @property
    def pid(self) -> int | None:
        """Id of the process; None while none runs."""
        return self._process.pid if self._process else None

    @property
    def workspaces(self) -> list[WorkspaceStatus]:
        """The state of each index."""
        return list(self._workspaces.values())

    def memory_bytes(self) -> int:
        """Return the memory that the process uses; 0 while none runs."""
        return self._process.memory_bytes() if self._process else 0

    async def open(self, root: str) -> bool:
        """Have a workspace indexed; returns False if no process can be started."""
        return await self._send(OpenWorkspace(root))

    async def report_changes(self, root: str, paths: list[str]) -> None:
        """Have changed files of a workspace read again; does nothing if the workspace has no index."""
        if root in self._workspaces and self._process is not None:
            await self._send(FilesChanged(root, paths))

    async def select(self, query: SelectChunks) -> list[ContextChunk]:
        """Return the chunks for a cursor; none if no process can be started, or it crashes.

        The ``id`` of the query is set here.
        """
        number = next(self._ids)
        answer = self._pending[number] = asyncio.get_running_loop().create_future()
        try:
            if not await self._send(msgspec.structs.replace(query, id=number)):
                return []
            await self._wait_for(answer)
            chunks: list[ContextChunk] = answer.result()
            return chunks
        finally:
            self._pending.pop(number, None)

    async def stop(self) -> None:
        """End the process; no other is started."""
        self._stopped = True
        process = self._process
        if process is not None:
            await process.stop()
        if self._listener is not None:
            await self._listener

    async def _wait_for(self, answer: asyncio.Future[list[ContextChunk]]) -> None:
        """Wait for an answer; a process that hangs is killed, and the answer is then empty."""
        silent_s = 0.0
        while not answer.done():
            replies, process = self._replies, self._process
            await asyncio.wait((answer,), timeout=HANG_CHECK_S)
            silent_s = silent_s + HANG_CHECK_S if self._replies == replies else 0.0
            if not answer.done() and process is not None and (process.stopped() or silent_s >= MAX_SILENCE_S):
                log.warning("the index process hangs and is killed")
                process.kill()

    def _backing_off(self) -> bool:
        return self._crashes >= MAX_CRASHES and asyncio.get_running_loop().time() < self._crashed_at + RETRY_S

    def _count_crash(self, why: object) -> None:
        self._crashes += 1
        self._crashed_at = asyncio.get_running_loop().time()
        log.warning("the index process ended: %s", why)

    async def _send(self, request: IndexRequest) -> bool:
        """Send a request, and start the process for it if none runs; returns False if that is not possible."""
        async with self._send_lock:
            if self._stopped or (self._process is None and self._backing_off()):
                return False
            self._workspaces.setdefault(request.root, WorkspaceStatus(root=request.root, state=IndexState.WAITING))
            line = msgspec.json.encode(request)
            if self._process is None:
                try:
                    self._process = await ChildProcess.spawn(MODULE, line)
                except Exception as error:  # whatever the reason, completions work without an index
                    self._count_crash(error)
                    return False
                self._listener = asyncio.create_task(self._listen(self._process))
                return True
            try:
                self._process.send(line)
            except ChildGone:
                return False
            return True

    async def _listen(self, process: ChildProcess) -> None:
        decoder = msgspec.json.Decoder(IndexReply)
        try:
            while True:
                reply = decoder.decode(await process.receive())
                self._crashes = 0
                self._replies += 1
                if isinstance(reply, SelectedChunks):
                    pending = self._pending.get(reply.id)
                    if pending is not None and not pending.done():
                        pending.set_result(reply.chunks)
                else:
                    self._workspaces[reply.status.root] = reply.status
        except Exception as error:
            if not self._stopped:
                self.restarts += 1
                self._count_crash(process.stderr_tail or error)
        finally:
            self._process = None
            self._workspaces.clear()
            for answer in self._pending.values():
                if not answer.done():
                    answer.set_result([])
            await process.stop()
