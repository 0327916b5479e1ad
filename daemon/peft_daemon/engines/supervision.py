"""What engines in a child process share: start it, notice its death, bring up the next one, retry what had not begun.

A child that dies is replaced after a back-off; a request that had produced nothing yet is retried once. What a child
is and how it is spoken to is the engine's.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from peft_daemon.engines.base import AdapterLease, Delta, Finish, GarbledAnswer, GenerationRequest, LoadChecks
from peft_daemon.engines.process import ChildGone, EngineProcess
from peft_daemon.errors import EngineFailed, PeftDaemonError, Unavailable, UnusableFile
from peft_daemon.protocol import EngineState, EngineStatus

BACKOFF_S = (0.2, 1.0, 3.0, 10.0, 30.0)
"""Pause before the n-th restart in a row; the last one repeats."""
FAILED_AFTER = 4
"""Deaths in a row, without one finished request between them, after which requests are refused at once."""
REPLACEMENT_CHARACTER = "\N{REPLACEMENT CHARACTER}"
"""What stands for bytes that are no text; models seldom write it."""


class Child(Protocol):
    """A running child process and the way to speak to it."""

    @property
    def process(self) -> EngineProcess:
        """The process."""

    @property
    def retired(self) -> bool:
        """Whether its end is wanted."""

    async def end(self) -> None:
        """Stop it now, and release what belongs to it."""


C = TypeVar("C", bound=Child)


class SupervisedEngine(ABC, Generic[C]):
    """An engine with one current child. Subclasses start children and speak to them."""

    kind: ClassVar[str]
    """As ``status`` reports it."""
    start_limit_s: ClassVar[float]
    """Longest time a child may take until it serves."""

    def __init__(self, *, model_id: str, context_tokens: int, checks: LoadChecks | None = None) -> None:
        self._model_id, self._context_tokens, self._checks = model_id, context_tokens, checks
        self._current: C | None = None
        self._children: set[C] = set()
        self._swap = asyncio.Lock()
        """Held while a child is started that is to be the current one."""
        self._changed = asyncio.Condition()
        self._state = EngineState.STOPPED
        self._restarts = 0
        self._deaths_in_a_row = 0
        self._last_error: PeftDaemonError | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def _spawn_first(self) -> C:
        """A child that serves, without adapters; raises EngineFailed."""

    @abstractmethod
    def _lease(self, request: GenerationRequest | None) -> AbstractAsyncContextManager[C]:
        """A child that can serve ``request`` (None: count tokens), kept alive until the block ends."""

    @abstractmethod
    def _stream(self, child: C, request: GenerationRequest) -> AsyncGenerator[Delta | Finish, None]:
        """One generation by this child; raises ChildGone when it dies."""

    @abstractmethod
    async def _count(self, child: C, texts: Sequence[str]) -> list[int]:
        """Tokens of each text; raises ChildGone."""

    @abstractmethod
    def _loaded(self, child: C) -> list[str]:
        """Digests of the adapters the child holds."""

    async def start(self) -> None:
        """Begin loading the model; returns at once."""
        if self._state is not EngineState.STOPPED:
            return
        self._state = EngineState.STARTING
        self._background(self._bring_up(delay_s=0.0))

    async def ready(self) -> None:
        """Wait for the first child; raises EngineFailed when it keeps dying, Unavailable when stopped."""
        if self._current is not None:
            return
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(self._settled), self.start_limit_s)
            except TimeoutError:
                raise Unavailable("the model is still loading", fix="Try again in a moment") from None
        if self._current is None:
            raise self._refusal()

    async def reload(self, error: EngineFailed) -> None:
        """End the current child because of ``error``; the next one loads the files anew, after the usual pause."""
        async with self._swap:
            child, self._current = self._current, None
            if child is None or self._state is EngineState.STOPPED:
                return
            self._restarts += 1
            self._record_death(error)
        await self._announce()
        await child.process.stop(grace_s=0)
        await child.end()
        self._children.discard(child)

    async def stop(self) -> None:
        """End all children; requests in flight fail with EngineFailed."""
        self._state = EngineState.STOPPED
        self._current = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(child.end() for child in self._children))
        self._children.clear()
        await self._announce()

    def status(self) -> EngineStatus:
        """A snapshot."""
        current, error = self._current, self._last_error
        return EngineStatus(
            kind=self.kind,
            state=self._state,
            model=self._model_id,
            pid=current.process.pid if current else None,
            restarts=self._restarts,
            memory_bytes=current.process.memory_bytes() if current else 0,
            context_tokens=self._context_tokens,
            adapters=self._loaded(current) if current else [],
            last_error=error.line if error else "",
            fix=error.fix if error else "",
        )

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, taken literally."""
        for attempt in (1, 2):
            async with self._lease(None) as child:
                try:
                    return await self._count(child, texts)
                except ChildGone:
                    if attempt == 2 or self._state is EngineState.STOPPED:
                        raise self._died(child) from None
                    await self._replaced(child)
        raise AssertionError("the second attempt returns or raises")

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta | Finish, None]:
        """Stream one generation; see ``engines.base.Engine``."""
        for attempt in (1, 2):
            began = False
            async with self._lease(request) as child:
                try:
                    async with aclosing(self._stream(child, request)) as stream:
                        async for item in stream:
                            began = began or isinstance(item, Finish) or not item.silent
                            if isinstance(item, Delta) and REPLACEMENT_CHARACTER in item.text:
                                self._suspect("it wrote bytes that are no text")
                            if isinstance(item, Finish):
                                self._deaths_in_a_row = 0
                            yield item
                    return
                except GarbledAnswer as error:
                    self._suspect(error.why)
                    raise
                except ChildGone:
                    if began or attempt == 2 or self._state is EngineState.STOPPED:
                        raise self._died(child) from None
                    await self._replaced(child)

    def _suspect(self, why: str) -> None:
        if self._checks is not None:
            self._checks.suspect(why)

    async def _file_to_load(self, model_path: Path) -> Path:
        """The model's file for the next child: ``model_path`` where nothing checks it. Raises UnusableFile."""
        return await asyncio.to_thread(self._checks.model) if self._checks is not None else model_path

    async def _check(self, adapter: AdapterLease) -> None:
        """Raise UnusableFile unless the adapter may be loaded."""
        if self._checks is not None:
            await asyncio.to_thread(self._checks.adapter, adapter)

    def _adopt(self, child: C) -> None:
        """Watch a child that serves from now on."""
        self._children.add(child)
        self._background(self._watch(child))

    async def _bring_up(self, delay_s: float) -> None:
        """Start a child without adapters (they are loaded again on demand), after a pause."""
        await asyncio.sleep(delay_s)
        async with self._swap:
            if self._current is not None:  # a swap that was under way brought a new one
                return
            try:
                self._current = await self._spawn_first()
            except EngineFailed as error:
                self._record_death(error)
            else:
                self._state = EngineState.READY
                self._last_error = None
        await self._announce()

    async def _watch(self, child: C) -> None:
        """Notice the child's end; start the next one when nobody asked for it."""
        code = await child.process.wait()
        if child.retired or self._state is EngineState.STOPPED or child is not self._current:
            return
        self._current = None
        self._restarts += 1
        self._record_death(
            EngineFailed(
                "the engine died",
                why=child.process.last_words or f"exit code {code}",
                fix="It restarts by itself; if it keeps dying run `peft-daemon doctor`",
            )
        )
        await self._announce()
        await child.end()
        self._children.discard(child)

    def _record_death(self, error: EngineFailed) -> None:
        self._last_error = error
        self._deaths_in_a_row += 1
        failed = self._deaths_in_a_row >= FAILED_AFTER or isinstance(error, UnusableFile)
        self._state = EngineState.FAILED if failed else EngineState.RESTARTING
        self._background(self._bring_up(BACKOFF_S[min(self._deaths_in_a_row, len(BACKOFF_S)) - 1]))

    async def _replaced(self, dead: C) -> None:
        """Wait until ``dead`` is no longer the current child (its watcher sees to that)."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._current is not dead)

    def _settled(self) -> bool:
        return self._current is not None or self._state in (EngineState.FAILED, EngineState.STOPPED)

    def _refusal(self) -> PeftDaemonError:
        if self._state is EngineState.STOPPED:
            return Unavailable("the engine is stopped", fix="Start the daemon with `peft-daemon start`")
        return self._last_error or Unavailable("the engine is not ready", fix="Try again in a moment")

    def _died(self, child: C) -> EngineFailed:
        return EngineFailed(
            "the engine died while it worked on this request",
            why=child.process.last_words,
            fix="Send the request again; the engine restarts by itself",
        )

    async def _announce(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
