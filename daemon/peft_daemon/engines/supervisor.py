"""What engines in a child process share: start it, notice its death, bring up the next one, retry what had not begun.

A child that dies or hangs is replaced after a back-off; a request that had produced nothing yet is retried once.
Whatever else goes wrong, supervision goes on: the child is ended, the status says what happened, and the next one is
tried. Never more than ``MAX_PROCESSES`` live at a time. What a child is and how it is spoken to is the engine's.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

from peft_core.api_types import EngineState, EngineStatus
from peft_core.child_process import ChildGone, ChildProcess
from peft_core.errors import EngineFailed, PeftDaemonError, Unavailable, UnusableFile
from peft_core.tasks import BackgroundTasks
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines.base import Delta, Finish, GarbledOutput, GenerationRequest, LoadChecks
from peft_daemon.engines.heartbeat import Heartbeat

BACKOFF_S = (0.2, 1.0, 3.0, 10.0, 30.0)
"""Pause before the n-th restart in a row; the last one repeats."""
MAX_DEATHS_IN_A_ROW = 4
"""Deaths in a row, without one finished request between them, after which requests are refused at once."""
MAX_PROCESSES = 2
"""Child processes alive at a time: the current one, and its successor or its predecessor. Each may fill much memory."""
FREE_PROCESS_WAIT_S = 60.0
"""How long a new child waits for an older one to finish its requests and end."""
BROKEN_CONNECTION_WAIT_S = 3.0
"""How long after a broken connection the child's end is waited for, before it is taken for alive."""
REPLACEMENT_CHARACTER = "\N{REPLACEMENT CHARACTER}"
"""What stands for bytes that are no text; models seldom write it."""

log = logging.getLogger("peft_daemon.engines")


class SupervisedChild(Protocol):
    """A running child process and the way to speak to it."""

    @property
    def process(self) -> ChildProcess:
        """The process."""

    @property
    def heartbeat(self) -> Heartbeat:
        """What notices that it hangs."""

    @property
    def retired(self) -> bool:
        """Whether its end is wanted."""

    async def end(self) -> None:
        """Stop it now, and release what belongs to it."""


C = TypeVar("C", bound=SupervisedChild)


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
        """Those that were started and are not known to have ended."""
        self._processes: set[ChildProcess] = set()
        """Those that live, also ones that do not serve yet or are ending."""
        self._swap = asyncio.Lock()
        """Held while a child is started that is to be the current one."""
        self._changed = asyncio.Condition()
        self._state = EngineState.STOPPED
        self._restarts = 0
        self._deaths_in_a_row = 0
        self._last_error: PeftDaemonError | None = None
        self._background = BackgroundTasks(log, "supervision of the engine failed", PeftDaemonError)
        self._ends = BackgroundTasks(log, "waiting for the end of an engine failed")
        """Wait for the ends of processes, beyond the end of supervision."""

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

    @asynccontextmanager
    async def _starting(self, module: str, first_line: bytes) -> AsyncGenerator[ChildProcess, None]:
        """A new child process, ended again unless the block gets to its end.

        Waits while ``MAX_PROCESSES`` live; raises Unavailable when that does not change.
        """
        await self._room()
        process = await ChildProcess.spawn(module, first_line)
        self._processes.add(process)
        self._ends.spawn(self._forget_at_its_end(process))
        try:
            yield process
        except BaseException:
            await process.stop(grace_s=0.0)
            raise

    async def _room(self) -> None:
        async with self._changed:
            try:
                async with asyncio.timeout(FREE_PROCESS_WAIT_S):
                    await self._changed.wait_for(lambda: len(self._processes) < MAX_PROCESSES)
            except TimeoutError:
                raise Unavailable(
                    "no further engine can be started now",
                    why=f"{MAX_PROCESSES} run, and the older one still works on earlier requests",
                    fix="Try again when those are done",
                ) from None

    async def _forget_at_its_end(self, process: ChildProcess) -> None:
        try:
            await process.wait()
        finally:
            self._processes.discard(process)
            await self._announce()

    async def start(self) -> None:
        """Begin loading the model; returns at once."""
        if self._state is not EngineState.STOPPED:
            return
        self._state = EngineState.STARTING
        self._background.spawn(self._bring_up(delay_s=0.0))

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
        child.process.kill()
        await self._dispose(child)

    async def stop(self) -> None:
        """End all children; requests in flight fail with EngineFailed."""
        self._state = EngineState.STOPPED
        self._current = None
        await self._background.end()
        await asyncio.gather(*(self._dispose(child) for child in set(self._children)))
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
            responding=current is None or not (current.heartbeat.missed or current.process.stopped()),
        )

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, taken literally."""
        for attempt in (1, 2):
            async with self._lease(None) as child:
                try:
                    with child.heartbeat.working():
                        counts = await self._count(child, texts)
                    child.heartbeat.beat()
                    return counts
                except ChildGone as gone:
                    if attempt == 2 or self._state is EngineState.STOPPED:
                        raise self._died(child, gone) from None
                    await self._replaced(child)
        raise AssertionError("the second attempt returns or raises")

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta | Finish, None]:
        """Stream one generation; see ``engines.base.Engine``."""
        for attempt in (1, 2):
            began = False
            async with self._lease(request) as child:
                try:
                    async with aclosing(self._watched(child, request)) as stream:
                        async for item in stream:
                            began = began or isinstance(item, Finish) or not item.silent
                            if isinstance(item, Delta) and REPLACEMENT_CHARACTER in item.text:
                                self._suspect("it wrote bytes that are no text")
                            if isinstance(item, Finish):
                                self._deaths_in_a_row = 0
                            yield item
                    return
                except GarbledOutput as error:
                    self._suspect(error.why)
                    raise
                except ChildGone as gone:
                    if began or attempt == 2 or self._state is EngineState.STOPPED:
                        raise self._died(child, gone) from None
                    await self._replaced(child)

    async def _watched(self, child: C, request: GenerationRequest) -> AsyncGenerator[Delta | Finish, None]:
        async with aclosing(self._stream(child, request)) as stream:
            while True:
                # Not while the item is used: a client that does not read on is no fault of the child's.
                with child.heartbeat.working():
                    item = await anext(stream, None)
                if item is None:
                    return
                child.heartbeat.beat()
                yield item

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

    def _take_over(self, child: C) -> None:
        """Let ``child`` serve from now on, and watch it."""
        self._current, self._state, self._last_error = child, EngineState.READY, None
        self._background.spawn(self._watch(child))

    async def _bring_up(self, delay_s: float) -> None:
        """Start a child without adapters (they are loaded again on demand), after a pause."""
        await asyncio.sleep(delay_s)
        async with self._swap:
            if self._current is not None:  # a swap that was under way brought a new one
                return
            try:
                self._take_over(await self._spawn_first())
            except Exception as error:
                self._record_death(start_failure(error))
        await self._announce()

    async def _watch(self, child: C) -> None:
        """Notice the child's end, and end it when it hangs; start the next one when nobody asked for it."""
        try:
            error = await self._failure(child)
        except Exception as unexpected:  # what is not watched must not serve
            log.exception("an engine could not be watched")
            error = start_failure(unexpected)
            child.process.kill()
        if self._state is EngineState.STOPPED or child.retired or child is not self._current:
            return  # whoever wanted its end releases it
        self._current = None
        self._restarts += 1
        self._record_death(error)
        await self._announce()
        await self._dispose(child)

    async def _failure(self, child: C) -> EngineFailed:
        """Wait for the child's end, which comes by itself or because it hangs."""
        ended, hung = asyncio.ensure_future(child.process.wait()), asyncio.ensure_future(child.heartbeat.hangs())
        try:
            await asyncio.wait((ended, hung), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                log.error("the engine (pid %d) hangs and is ended: %s", child.process.pid, hung.result())
                child.process.kill()
            code = await ended
        finally:
            for each in (ended, hung):
                each.cancel()
        if child.heartbeat.verdict:
            return EngineFailed(
                "the engine hung and was ended",
                why=child.heartbeat.verdict,
                fix="It restarts by itself; if it keeps hanging run `peft-daemon doctor`",
            )
        return EngineFailed(
            "the engine died",
            why=child.process.stderr_tail or f"exit code {code}",
            fix="It restarts by itself; if it keeps dying run `peft-daemon doctor`",
        )

    async def _dispose(self, child: C) -> None:
        """End a child and release what belongs to it, whatever goes wrong."""
        try:
            await child.end()
        except Exception:
            log.exception("an engine was not ended in order")
        finally:
            child.process.kill()
            self._children.discard(child)

    def _record_death(self, error: EngineFailed) -> None:
        self._last_error = error
        self._deaths_in_a_row += 1
        failed = self._deaths_in_a_row >= MAX_DEATHS_IN_A_ROW or isinstance(error, UnusableFile)
        self._state = EngineState.FAILED if failed else EngineState.RESTARTING
        self._background.spawn(self._bring_up(BACKOFF_S[min(self._deaths_in_a_row, len(BACKOFF_S)) - 1]))

    async def _replaced(self, dead: C) -> None:
        """Wait until ``dead`` is no longer the current child (its watcher sees to that), if it is dead at all."""
        async with self._changed:
            try:
                async with asyncio.timeout(BROKEN_CONNECTION_WAIT_S):
                    await self._changed.wait_for(lambda: self._current is not dead)
            except TimeoutError:
                log.warning("the engine (pid %d) lives, but the connection to it broke", dead.process.pid)

    def _settled(self) -> bool:
        return self._current is not None or self._state in (EngineState.FAILED, EngineState.STOPPED)

    def _refusal(self) -> PeftDaemonError:
        if self._state is EngineState.STOPPED:
            return Unavailable("the engine is stopped", fix="Start the daemon with `peft-daemon start`")
        return self._last_error or Unavailable("the engine is not ready", fix="Try again in a moment")

    def _died(self, child: C, gone: ChildGone) -> EngineFailed:
        hung = child.heartbeat.verdict
        return EngineFailed(
            f"the engine {'hung' if hung else 'died'} while it worked on this request",
            why=hung or child.process.stderr_tail or str(gone.__cause__ or ""),
            fix="Send the request again; the engine restarts by itself",
        )

    async def _announce(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def start_failure(error: Exception) -> EngineFailed:
    """What went wrong at the start of a child, as requests and the status tell of it."""
    if isinstance(error, EngineFailed):
        return error
    if isinstance(error, PeftDaemonError):
        return EngineFailed(error.what, why=error.why, fix=error.fix)
    log.error("an engine could not be started", exc_info=error)
    return EngineFailed(
        "the engine could not be started",
        why=f"{type(error).__name__}: {error}"[:500],
        fix="It is tried again by itself; the log has more, and `peft-daemon doctor` looks for the cause",
    )
