"""One model made of several machines: each input goes to the machine with the fewest in hand.

``DistributedModel`` knows machines by the ``RemoteModel`` protocol alone. A machine that is lost is asked no more, and
its inputs are asked again of another. Inputs with a common beginning arrive one after the other, so each machine reads
that beginning once. ``ClusterWorker`` is the process on a node: the base model is the node's own, adapters arrive as
bytes and are kept in a private folder until the end. No generated code is run there. It does not import Ray.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import msgspec

from peft_core.errors import Conflict, EngineFailed
from peft_daemon.adapters.manifest import AdapterLease
from peft_evaluation.model import Model, ModelInput, ModelOutput, ModelSpec, open_model
from peft_tuning.installation import Installation

logger = logging.getLogger(__name__)


class NodeLost(Exception):
    """A machine, or the process on it, is gone. Its text says why."""


class RemoteModel(Protocol):
    """A model on another machine."""

    @property
    def node(self) -> str:
        """The machine, for people."""

    @property
    def at_once(self) -> int:
        """How many questions it answers together."""

    async def answer(self, question: ModelInput) -> tuple[ModelOutput, int]:
        """The answer, and the bytes of memory held there afterwards.

        Raises NodeLost, and what a ``Model`` raises: that would happen on every machine.
        """


class DistributedModel:
    """See ``model.Model``. Needs one worker at least."""

    def __init__(self, workers: Sequence[RemoteModel]) -> None:
        self._under_way = dict.fromkeys(workers, 0)
        self._at_once = sum(worker.at_once for worker in workers)
        self._memory: dict[RemoteModel, int] = {}
        self._lost: list[str] = []
        self._changed = asyncio.Event()

    @property
    def at_once(self) -> int:
        """Of all workers together, as there were at the beginning."""
        return self._at_once

    async def answer(self, question: ModelInput) -> ModelOutput:
        """See ``Model``. Raises EngineFailed when no worker is left."""
        while True:
            worker = await self._enter()
            try:
                given, self._memory[worker] = await worker.answer(question)
            except NodeLost as lost:
                self._lose(worker, lost)
            else:
                return msgspec.structs.replace(given, node=worker.node)
            finally:
                self._leave(worker)

    def memory_bytes(self) -> int:
        """Of the worker that holds most."""
        return max(self._memory.values(), default=0)

    async def _enter(self) -> RemoteModel:
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

    def _leave(self, worker: RemoteModel) -> None:
        if worker in self._under_way:
            self._under_way[worker] -= 1
        self._changed.set()

    def _lose(self, worker: RemoteModel, lost: NodeLost) -> None:
        # Each of its questions comes here.
        if self._under_way.pop(worker, None) is not None:
            self._lost.append(f"{worker.node}: {lost}")
            logger.warning("lost %s (%s); %d left", worker.node, lost, len(self._under_way))


Files = Mapping[str, bytes]
"""By path inside the adapter's folder; the one name ``""`` stands for an adapter that is a file."""


def packed(path: Path) -> Files:
    """The adapter at ``path``, a file or a folder."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def unpack(files: Files, path: Path) -> None:
    """Write what ``packed`` read to ``path``, which must not exist."""
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


class ClusterWorker:
    """One process on one node."""

    def __init__(self) -> None:
        # Ray sets it to the processors it reserved; the engines choose as they do on a machine of their own.
        os.environ.pop("OMP_NUM_THREADS", None)
        # As on the command line: bitsandbytes looks on the hub for kernels when it is imported.
        os.environ["HF_HUB_OFFLINE"] = "1"
        self._open = AsyncExitStack()
        self._answerer: Model | None = None
        self._adapters: dict[str, asyncio.Task[Path]] = {}
        self._folder = Path()

    async def require_base(self, installation: Installation, sha256: str) -> None:
        """Raise NotFound when this node has no such base model, Conflict when it has another file for it."""
        base = installation.here().base
        if base.sha256 != sha256:
            raise Conflict(
                f"{base.id} is another file",
                why=f"its sha256 begins with {base.sha256[:12]}, not with {sha256[:12]}",
                fix=f"Type `peft-daemon models pull {base.id}`",
            )

    async def open(self, plan: ModelSpec) -> int:
        """Load the model; how many questions are answered together. Raises what ``opened`` raises."""
        installation = plan.installation.here()
        self._folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="pd-")))
        installation.require_intact()
        answerer = await self._open.enter_async_context(
            open_model(replace(plan, installation=installation), installation.base.path)
        )
        self._answerer = answerer
        return answerer.at_once

    async def answer(self, question: ModelInput, parcels: tuple[Awaitable[Files], ...]) -> tuple[ModelOutput, int]:
        """The answer and the memory held; raises what a ``Model`` raises. ``parcels`` has the adapter, if any."""
        assert self._answerer is not None  # noqa: S101  (the cluster opens it first)
        for parcel in parcels:
            question = replace(question, adapter=await self._kept(question.adapter, parcel))
        return await self._answerer.answer(question), self._answerer.memory_bytes()

    async def close(self) -> None:
        """End the engine and delete the adapters."""
        await self._open.aclose()

    async def _kept(self, adapter: AdapterLease | None, parcel: Awaitable[Files]) -> AdapterLease:
        assert adapter is not None  # noqa: S101  (it is what the parcel holds)
        digest = adapter.digest
        if digest not in self._adapters:
            self._adapters[digest] = asyncio.create_task(self._keep(digest, parcel))
        return replace(adapter, path=await self._adapters[digest])

    async def _keep(self, digest: str, parcel: Awaitable[Files]) -> Path:
        path = self._folder / digest
        unpack(await parcel, path)
        return path
