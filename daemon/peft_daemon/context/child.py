"""The process with the indexes as the daemon sees it: started when first needed, started again when it died, asked.

Nobody waits for it longer than they say. A process that dies takes its indexes along; the next one builds them again
for the workspaces that are asked for. After some deaths in a row it is left alone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging

import msgspec

from peft_daemon.context.messages import Ask, Changed, Chosen, Open, Order, Report
from peft_daemon.context.protocol import IndexState, WorkspaceStatus
from peft_daemon.engines.process import ChildGone, EngineProcess
from peft_daemon.protocol import ContextChunk

MODULE = "peft_daemon.context.worker"
MOST_DEATHS = 3
"""In a row, without an answer between them."""

log = logging.getLogger(__name__)


class IndexChild:
    """One process for all workspaces."""

    def __init__(self) -> None:
        self.restarts = 0
        self._process: EngineProcess | None = None
        self._listening: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._deaths = 0
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
        return await self._send(Open(root))

    async def changed(self, root: str, paths: list[str]) -> None:
        """Tell of changed files of a workspace; nothing happens where it has no index."""
        if root in self._workspaces and self._process is not None:
            await self._send(Changed(root, paths))

    async def ask(self, question: Ask) -> list[ContextChunk]:
        """The chunks for a cursor (its ``id`` is given here); none where no process can be had, or it dies."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            if not await self._send(msgspec.structs.replace(question, id=number)):
                return []
            chunks: list[ContextChunk] = await answer
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

    async def _send(self, order: Order) -> bool:
        async with self._starting:
            if self._stopped or (self._process is None and self._deaths >= MOST_DEATHS):
                return False
            self._workspaces.setdefault(order.root, WorkspaceStatus(root=order.root, state=IndexState.WAITING))
            line = msgspec.json.encode(order)
            if self._process is None:
                self._process = await EngineProcess.spawn(MODULE, line)
                self._listening = asyncio.create_task(self._listen(self._process))
                return True
            try:
                self._process.send(line)
            except ChildGone:
                return False
            return True

    async def _listen(self, process: EngineProcess) -> None:
        decoder = msgspec.json.Decoder(Report)
        try:
            while True:
                report = decoder.decode(await process.receive())
                self._deaths = 0
                if isinstance(report, Chosen):
                    waiting = self._waiting.get(report.id)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(report.chunks)
                else:
                    self._workspaces[report.status.root] = report.status
        except (ChildGone, ValueError, RecursionError) as error:
            if not self._stopped:
                self._deaths += 1
                self.restarts += 1
                log.warning("the index of the workspace ended: %s", process.last_words or error)
        finally:
            self._process = None
            self._workspaces.clear()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_result([])
            await process.stop()
