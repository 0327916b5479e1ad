"""The daemon's side of the index process: its messages, its start when first needed, and its restart after a death.

Messages are one JSON value a line. A process that dies loses its indexes; the next one builds them again for the
workspaces that are asked for. A process that is silent for long is ended. After ``MAX_DEATHS`` in a row no process is
started for ``RETRY_S`` seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import logging

import msgspec

from peft_core.api_types import ContextChunk, IndexState, WorkspaceStatus
from peft_core.child_process import ChildGone, ChildProcess

MODULE = "peft_daemon.context.index_process"
MAX_DEATHS = 3
"""Deaths in a row, without an answer between them."""
RETRY_S = 600.0
"""How long no process is started after that."""
HANG_CHECK_S = 5.0
"""How often a process that has not answered yet is looked at."""
MAX_SILENCE_S = 60.0
"""A process that is asked and says nothing for so long, not even how far it has read, hangs: it has low priority."""

log = logging.getLogger(__name__)


class OpenWorkspace(msgspec.Struct, frozen=True, tag="open"):
    """Index a workspace, and look whether its files changed."""

    root: str


class FilesChanged(msgspec.Struct, frozen=True, tag="changed"):
    """Read these files anew; ``paths`` are relative to the workspace."""

    root: str
    paths: list[str]


class SelectChunks(msgspec.Struct, frozen=True, tag="ask", kw_only=True):
    """Choose chunks for a cursor in a workspace that was opened."""

    id: int
    root: str
    path: str
    """Relative to the workspace; empty for a document that is no file of it."""
    before: str
    after: str
    edits: list[ContextChunk]
    tokens: int


class SelectedChunks(msgspec.Struct, frozen=True, tag="chosen"):
    """The answer to ``SelectChunks``."""

    id: int
    chunks: list[ContextChunk]


class IndexProgress(msgspec.Struct, frozen=True, tag="told"):
    """Progress of an index, sent unasked now and then."""

    status: WorkspaceStatus


IndexRequest = OpenWorkspace | FilesChanged | SelectChunks
IndexReply = SelectedChunks | IndexProgress


class IndexClient:
    """One process for all workspaces."""

    def __init__(self) -> None:
        self.restarts = 0
        self._process: ChildProcess | None = None
        self._listening: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._deaths = 0
        self._died_at = 0.0
        self._reports = 0
        self._stopped = False
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[list[ContextChunk]]] = {}
        self._workspaces: dict[str, WorkspaceStatus] = {}

    @property
    def pid(self) -> int | None:
        """Of the process; None while none runs."""
        return self._process.pid if self._process else None

    @property
    def workspaces(self) -> list[WorkspaceStatus]:
        """What is known of the indexes."""
        return list(self._workspaces.values())

    def memory_bytes(self) -> int:
        """Of the process."""
        return self._process.memory_bytes() if self._process else 0

    async def open(self, root: str) -> bool:
        """See to it that a workspace is indexed; False where no process can be had."""
        return await self._send(OpenWorkspace(root))

    async def changed(self, root: str, paths: list[str]) -> None:
        """Tell of changed files of a workspace; nothing happens where it has no index."""
        if root in self._workspaces and self._process is not None:
            await self._send(FilesChanged(root, paths))

    async def ask(self, question: SelectChunks) -> list[ContextChunk]:
        """The chunks for a cursor (its ``id`` is given here); none where no process can be had, or it dies."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            if not await self._send(msgspec.structs.replace(question, id=number)):
                return []
            await self._watch(answer)
            chunks: list[ContextChunk] = answer.result()
            return chunks
        finally:
            self._waiting.pop(number, None)

    async def stop(self) -> None:
        """End the process; no other is started."""
        self._stopped = True
        process = self._process
        if process is not None:
            await process.stop()
        if self._listening is not None:
            await self._listening

    async def _watch(self, answer: asyncio.Future[list[ContextChunk]]) -> None:
        """Wait for an answer, and end a process that hangs instead of giving it: then the answer is empty."""
        silent_s = 0.0
        while not answer.done():
            reports, process = self._reports, self._process
            await asyncio.wait((answer,), timeout=HANG_CHECK_S)
            silent_s = silent_s + HANG_CHECK_S if self._reports == reports else 0.0
            if not answer.done() and process is not None and (process.stopped() or silent_s >= MAX_SILENCE_S):
                log.warning("the index of the workspace hangs and is ended")
                process.kill()

    def _left_alone(self) -> bool:
        return self._deaths >= MAX_DEATHS and asyncio.get_running_loop().time() < self._died_at + RETRY_S

    def _died(self, why: object) -> None:
        self._deaths += 1
        self._died_at = asyncio.get_running_loop().time()
        log.warning("the index of the workspace ended: %s", why)

    async def _send(self, order: IndexRequest) -> bool:
        async with self._starting:
            if self._stopped or (self._process is None and self._left_alone()):
                return False
            self._workspaces.setdefault(order.root, WorkspaceStatus(root=order.root, state=IndexState.WAITING))
            line = msgspec.json.encode(order)
            if self._process is None:
                try:
                    self._process = await ChildProcess.spawn(MODULE, line)
                except Exception as error:  # the system may lack anything; completions go on without
                    self._died(error)
                    return False
                self._listening = asyncio.create_task(self._listen(self._process))
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
                report = decoder.decode(await process.receive())
                self._deaths = 0
                self._reports += 1
                if isinstance(report, SelectedChunks):
                    waiting = self._waiting.get(report.id)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(report.chunks)
                else:
                    self._workspaces[report.status.root] = report.status
        except Exception as error:
            if not self._stopped:
                self.restarts += 1
                self._died(process.stderr_tail or error)
        finally:
            self._process = None
            self._workspaces.clear()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_result([])
            await process.stop()
