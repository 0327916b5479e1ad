"""One answerer made of several machines: each question goes to the one with the fewest in hand.

A machine that is lost is asked no more, and what it had in hand is asked again of another. Knows machines by the
``Worker`` protocol alone; how they are found and reached is in ``cluster``. Prompts with a common beginning stay
together because ``generate`` asks them one after the other: each machine reads that beginning once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

import msgspec

from peft_core.errors import EngineFailed
from peft_evaluation.answering import Given, Question

logger = logging.getLogger(__name__)


class WorkerLost(Exception):
    """A machine, or the process on it, is gone. Its text says why."""


class Worker(Protocol):
    """An answerer on some machine."""

    @property
    def node(self) -> str:
        """The machine, for people."""

    @property
    def at_once(self) -> int:
        """How many questions it answers together."""

    async def answer(self, question: Question) -> tuple[Given, int]:
        """The answer, and the bytes of memory held there afterwards.

        Raises WorkerLost, and what an ``Answerer`` raises: that would happen on every machine.
        """


class DistributedAnswerer:
    """See ``answering.Answerer``. Needs one worker at least."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._under_way = dict.fromkeys(workers, 0)
        self._at_once = sum(worker.at_once for worker in workers)
        self._memory: dict[Worker, int] = {}
        self._lost: list[str] = []
        self._changed = asyncio.Event()

    @property
    def at_once(self) -> int:
        """Of all workers together, as there were at the beginning."""
        return self._at_once

    async def answer(self, question: Question) -> Given:
        """See ``Answerer``. Raises EngineFailed when no worker is left."""
        while True:
            worker = await self._enter()
            try:
                given, self._memory[worker] = await worker.answer(question)
            except WorkerLost as lost:
                self._lose(worker, lost)
            else:
                return msgspec.structs.replace(given, node=worker.node)
            finally:
                self._leave(worker)

    def memory_bytes(self) -> int:
        """Of the worker that holds most."""
        return max(self._memory.values(), default=0)

    async def _enter(self) -> Worker:
        """Take a place at the worker with the fewest questions in hand, waiting for one to be free."""
        while self._under_way:
            free = [worker for worker, count in self._under_way.items() if count < worker.at_once]
            if free:
                worker = min(free, key=lambda each: self._under_way[each])
                self._under_way[worker] += 1
                return worker
            self._changed.clear()
            await self._changed.wait()
        raise EngineFailed(
            "no node of the cluster is left",
            why="; ".join(self._lost),
            fix="Bring one back and give the same command with `--resume`",
        )

    def _leave(self, worker: Worker) -> None:
        if worker in self._under_way:
            self._under_way[worker] -= 1
        self._changed.set()

    def _lose(self, worker: Worker, lost: WorkerLost) -> None:
        # Each of its questions comes here.
        if self._under_way.pop(worker, None) is not None:
            self._lost.append(f"{worker.node}: {lost}")
            logger.warning("lost %s (%s); %d left", worker.node, lost, len(self._under_way))
