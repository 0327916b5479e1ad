"""The part of a distributed evaluation that lives on a cluster's node: it answers, and does nothing else.

The base model is the node's own. Adapters arrive as bytes and are kept in a private folder until the end. No generated
code is run here, and nothing is written elsewhere. Does not import Ray, which calls its methods on one event loop.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from peft_core.errors import Conflict
from peft_daemon.adapters.manifest import AdapterLease
from peft_evaluation.answering import Answerer, Given, Question
from peft_evaluation.opening import Plan, opened
from peft_tuning.installation import Installation

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
        self._answerer: Answerer | None = None
        self._adapters: dict[str, asyncio.Task[Path]] = {}
        self._folder = Path()

    async def require_base(self, place: Installation, sha256: str) -> None:
        """Raise NotFound when this node has no such base model, Conflict when it has another file for it."""
        base = place.here().base
        if base.sha256 != sha256:
            raise Conflict(
                f"{base.id} is another file",
                why=f"its sha256 begins with {base.sha256[:12]}, not with {sha256[:12]}",
                fix=f"Type `peft-daemon models pull {base.id}`",
            )

    async def open(self, plan: Plan) -> int:
        """Load the model; how many questions are answered together. Raises what ``opened`` raises."""
        place = plan.place.here()
        self._folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="pd-")))
        place.require_intact()
        answerer = await self._open.enter_async_context(opened(replace(plan, place=place), place.base.path))
        self._answerer = answerer
        return answerer.at_once

    async def answer(self, question: Question, parcels: tuple[Awaitable[Files], ...]) -> tuple[Given, int]:
        """The answer and the memory held; raises what ``Answerer`` raises. ``parcels`` has the adapter, if any."""
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
