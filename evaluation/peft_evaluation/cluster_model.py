"""One model that runs on several machines: each question goes to the machine with the fewest questions in progress.

``DistributedModel`` uses machines through the ``RemoteModel`` protocol. If a machine is lost, its questions are sent to
another one. ``ClusterWorker`` is the process on a node: it uses the node's own base model, and keeps the adapters that
it is sent in a private folder until it ends. It runs no generated code. This module does not import Ray.
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
    """A machine, or the process on it, is gone. The message says why."""


class RemoteModel(Protocol):
    """A model on another machine."""

    @property
    def node(self) -> str:
        """The machine's name for messages."""

    @property
    def at_once(self) -> int:
        """How many questions it answers at the same time."""

    async def answer(self, question: ModelInput) -> tuple[ModelOutput, int]:
        """Return the answer, and the bytes of memory held there afterwards.

        Raises NodeLost, and what a ``Model`` raises, which would happen on every machine.
        """


class DistributedModel:
    """A ``model.Model`` made of at least one remote model."""

    def __init__(self, workers: Sequence[RemoteModel]) -> None:
        self._under_way = dict.fromkeys(workers, 0)
        self._at_once = sum(worker.at_once for worker in workers)
        self._memory: dict[RemoteModel, int] = {}
        self._lost: list[str] = []
        self._changed = asyncio.Event()

    @property
    def at_once(self) -> int:
        """How many questions all machines of the beginning answer at the same time."""
        return self._at_once

    async def answer(self, question: ModelInput) -> ModelOutput:
        """See ``Model``. Raises EngineFailed if no machine is left."""
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
        """Return the memory of the machine that holds most, in bytes."""
        return max(self._memory.values(), default=0)

    async def _enter(self) -> RemoteModel:
        """Choose the worker with the fewest questions in progress, and count one more; waits until one is free."""
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
            fix="Start a node again and give the same command with `--resume`",
        )

    def _leave(self, worker: RemoteModel) -> None:
        if worker in self._under_way:
            self._under_way[worker] -= 1
        self._changed.set()

    def _lose(self, worker: RemoteModel, lost: NodeLost) -> None:
        # Called once for each question in progress there; the first call removes the worker.
        if self._under_way.pop(worker, None) is not None:
            self._lost.append(f"{worker.node}: {lost}")
            logger.warning("lost %s (%s); %d left", worker.node, lost, len(self._under_way))


AdapterFiles = Mapping[str, bytes]
"""The content of each file by its path in the adapter's folder; an adapter that is one file has the path ``""``."""


def pack_adapter(path: Path) -> AdapterFiles:
    """Read the adapter at ``path``, a file or a folder."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def unpack_adapter(files: AdapterFiles, path: Path) -> None:
    """Write what ``pack_adapter`` read to ``path``, which must not exist."""
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


class ClusterWorker:
    """The process on a node: loads the model and answers questions. Ray calls its methods."""

    def __init__(self) -> None:
        # Ray sets it to the processors it reserved; without it the engines choose the number of threads as usual.
        os.environ.pop("OMP_NUM_THREADS", None)
        # As the command line does: bitsandbytes looks for kernels on the hub when it is imported.
        os.environ["HF_HUB_OFFLINE"] = "1"
        self._open = AsyncExitStack()
        self._model: Model | None = None
        self._adapters: dict[str, asyncio.Task[Path]] = {}
        self._folder = Path()

    async def require_base(self, installation: Installation, sha256: str) -> None:
        """Raise NotFound if this node does not have the base model, Conflict if its file is another one."""
        base = installation.here().base
        if base.sha256 != sha256:
            raise Conflict(
                f"{base.id} is a different file",
                why=f"its sha256 begins with {base.sha256[:12]}, not with {sha256[:12]}",
                fix=f"Type `peft-daemon models pull {base.id}`",
            )

    async def open(self, plan: ModelSpec) -> int:
        """Load the model and return how many questions it answers at once; raises what ``open_model`` raises."""
        installation = plan.installation.here()
        self._folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="pd-")))
        installation.require_intact()
        model = await self._open.enter_async_context(
            open_model(replace(plan, installation=installation), installation.base.path, adapters_folder=self._folder)
        )
        self._model = model
        return model.at_once

    async def answer(
        self, question: ModelInput, adapters: tuple[Awaitable[AdapterFiles], ...]
    ) -> tuple[ModelOutput, int]:
        """Return the answer and the memory held, in bytes; raises what a ``Model`` raises.

        ``adapters`` has the files of the question's adapter, if it has one.
        """
        assert self._model is not None  # noqa: S101  (the cluster opens it first)
        for files in adapters:
            question = replace(question, adapter=await self._local_adapter(question.adapter, files))
        return await self._model.answer(question), self._model.memory_bytes()

    async def close(self) -> None:
        """End the engine and delete the adapters."""
        await self._open.aclose()

    async def _local_adapter(self, adapter: AdapterLease | None, files: Awaitable[AdapterFiles]) -> AdapterLease:
        """Return ``adapter`` with the path of its files on this node, which are written once."""
        assert adapter is not None  # noqa: S101  (files are sent only with an adapter)
        digest = adapter.digest
        if digest not in self._adapters:
            self._adapters[digest] = asyncio.create_task(self._write(digest, files))
        return replace(adapter, path=await self._adapters[digest])

    async def _write(self, digest: str, files: Awaitable[AdapterFiles]) -> Path:
        path = self._folder / digest
        unpack_adapter(await files, path)
        return path
