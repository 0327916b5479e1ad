"""Supervision of an engine's child process: start it, notice its end, replace it, retry requests that had not begun.

A child that dies or hangs is replaced after a back-off. A request that had produced no text yet is retried once. After
any other failure the child is ended, the status reports the error, and the next child is started: supervision never
ends. At most ``MAX_PROCESSES`` children live at a time. Subclasses define what a child is and how to use it.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from contextvars import Context
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

from peft_core.child_process import ChildGone, ChildProcess
from peft_core.errors import EngineFailed, PeftDaemonError, Unavailable
from peft_core.fence import fenced_off
from peft_core.status_types import EngineState, EngineStatus
from peft_core.tasks import BackgroundTasks
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines.base import GarbledOutput, GenerationChunk, GenerationRequest, LoadChecks
from peft_daemon.engines.heartbeat import Heartbeat

BACKOFF_S = (0.2, 1.0, 3.0, 10.0, 30.0)
"""Pauses before the first, second, … restart in a row; the last one repeats."""
MAX_DEATHS_IN_A_ROW = 4
"""Deaths in a row, with no finished request between them, after which requests are refused at once."""
MAX_FAILURES_IN_A_ROW = 5
"""Requests in a row that fail in a child that had answered before; then it is replaced. It may get no more memory."""
MAX_PROCESSES = 2
"""Child processes alive at a time: the current one, and its successor or its predecessor. Each may fill much memory."""
FREE_PROCESS_WAIT_S = 60.0
"""Longest wait of a new child for an older one to finish its requests and end."""
BROKEN_CONNECTION_WAIT_S = 3.0
"""Longest wait for the child's end after a broken connection; a child that lives longer is used again."""
REPLACEMENT_CHARACTER = "\N{REPLACEMENT CHARACTER}"
"""Decoding puts it in place of bytes that are not UTF-8; models seldom write it."""

log = logging.getLogger("peft_daemon.engines")


class SupervisedChild(Protocol):
    """A running child process and the connection to it."""

    @property
    def process(self) -> ChildProcess:
        """The process."""

    @property
    def heartbeat(self) -> Heartbeat:
        """Its heartbeat, which detects that it hangs."""

    @property
    def retired(self) -> bool:
        """Whether it is being ended on purpose."""

    async def end(self) -> None:
        """Stop it now and release its resources."""


C = TypeVar("C", bound=SupervisedChild)
T = TypeVar("T")


class SupervisedEngine(ABC, Generic[C]):
    """An engine with one serving child. Subclasses start children and send requests to them."""

    kind: ClassVar[str]
    """Name of the engine in its status."""
    start_limit_s: ClassVar[float]
    """Longest time until a started child serves."""

    def __init__(self, *, model_id: str, context_tokens: int, checks: LoadChecks | None = None) -> None:
        self._model_id, self._context_tokens, self._checks = model_id, context_tokens, checks
        self._current: C | None = None
        self._children: set[C] = set()
        """Children that were started and are not disposed of yet."""
        self._processes: set[ChildProcess] = set()
        """Live processes, including those that do not serve yet or are ending."""
        self._swap = asyncio.Lock()
        """Held while the next serving child is started."""
        self._changed = asyncio.Condition()
        self._state = EngineState.STOPPED
        self._restarts = 0
        self._deaths_in_a_row = 0
        self._failures_in_a_row = 0
        self._worked: C | None = None
        """The child that finished a request last."""
        self._last_error: PeftDaemonError | None = None
        self._background = BackgroundTasks(log, "supervision of the engine failed", PeftDaemonError, context=Context())
        self._ends = BackgroundTasks(log, "waiting for the end of an engine failed", context=Context())
        """Tasks that wait for the end of a process; they outlive supervision."""

    @abstractmethod
    async def _spawn_first(self) -> C:
        """Start a child and return it when it serves; raises EngineFailed."""

    @abstractmethod
    def _lease(self, request: GenerationRequest | None) -> AbstractAsyncContextManager[C]:
        """Return a context with a child that can serve ``request`` (None: count tokens), kept alive for the block."""

    @abstractmethod
    def _stream(self, child: C, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """Stream one generation of this child; raises ChildGone when it dies."""

    @abstractmethod
    async def _count(self, child: C, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text; raises ChildGone."""

    @abstractmethod
    def _loaded(self, child: C) -> list[str]:
        """Return the digests of the adapters in the child's memory."""

    def _card_bytes(self, child: C) -> int:
        """Return the memory of a graphics card that the child has told of."""
        return 0

    @asynccontextmanager
    async def _starting(self, module: str, first_line: bytes) -> AsyncGenerator[ChildProcess, None]:
        """Start a child process; end it again when the block raises.

        Waits while ``MAX_PROCESSES`` live; raises Unavailable when none of them ends in time, MemoryShortage where
        it does not fit.
        """
        await self._wait_for_free_process()
        if self._checks is not None and self._checks.room is not None:
            await self._checks.room(self._current is not None)
        process = await ChildProcess.spawn(module, first_line)
        self._processes.add(process)
        self._ends.spawn(self._forget_at_end(process))
        try:
            yield process
        except BaseException:
            await process.stop(grace_s=0.0)
            raise

    async def _wait_for_free_process(self) -> None:
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

    async def _forget_at_end(self, process: ChildProcess) -> None:
        try:
            await process.wait()
        finally:
            self._processes.discard(process)
            await self._announce()

    async def start(self) -> None:
        """Begin to load the model; returns at once."""
        if self._state is not EngineState.STOPPED:
            return
        self._state = EngineState.STARTING
        self._background.spawn(self._bring_up(delay_s=0.0))

    async def ready(self) -> None:
        """Wait until a child serves; raises EngineFailed when children keep dying, Unavailable when stopped."""
        if self._current is not None:
            return
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(self._is_settled), self.start_limit_s)
            except TimeoutError:
                raise Unavailable("the model is still loading", fix="Try again in a moment") from None
        if self._current is None:
            raise self._not_ready_error()

    @property
    def child(self) -> C | None:
        """The serving child; None while there is none."""
        return self._current

    async def wait_for_status(self, condition: Callable[[EngineStatus], bool]) -> EngineStatus:
        """Wait until the status, looked at after each change, meets ``condition``; return it."""
        async with self._changed:
            await self._changed.wait_for(lambda: condition(self.status()))
        return self.status()

    async def reload(self, error: EngineFailed) -> None:
        """End the serving child because of ``error``; the next one loads the files again after the usual pause."""
        await self._end_current(error)

    async def _end_current(self, error: EngineFailed) -> None:
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
        """End all children; requests under way fail with EngineFailed."""
        self._state = EngineState.STOPPED
        self._current = None
        await self._background.end()
        await asyncio.gather(*(self._dispose(child) for child in set(self._children)))
        await self._announce()

    @property
    @abstractmethod
    def _confined(self) -> bool:
        """Whether children begin by giving up what they do not need."""

    def status(self) -> EngineStatus:
        """Return the state, the serving process and the last error, without waiting."""
        current, error = self._current, self._last_error
        return EngineStatus(
            kind=self.kind,
            state=self._state,
            model=self._model_id,
            pid=current.process.pid if current else None,
            restarts=self._restarts,
            memory_bytes=current.process.memory_bytes() + self._card_bytes(current) if current else 0,
            context_tokens=self._context_tokens,
            adapters=self._loaded(current) if current else [],
            last_error=error.cause if error else "",
            fix=error.fix if error else "",
            withheld=list(fenced_off()) if current and self._confined else [],
            responding=current is None or not (current.heartbeat.missed or current.process.stopped()),
        )

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, tokenized literally."""
        return await self._ask(lambda child: self._count(child, texts))

    async def _ask(self, question: Callable[[C], Awaitable[T]]) -> T:
        """Return the serving child's answer to a short question, asked once more if the child died meanwhile."""
        for attempt in (1, 2):
            async with self._lease(None) as child:
                try:
                    with child.heartbeat.working():
                        answer = await question(child)
                    child.heartbeat.beat()
                    return answer
                except ChildGone as gone:
                    if attempt == 2 or self._state is EngineState.STOPPED:
                        raise self._death_error(child, gone) from None
                    await self._wait_for_replacement(child)
        raise AssertionError("the second attempt returns or raises")

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """Stream one generation as ``engines.base.Engine`` describes."""
        for attempt in (1, 2):
            began = False
            async with self._lease(request) as child:
                try:
                    async with aclosing(self._watched(child, request)) as chunks:
                        async for chunk in chunks:
                            began = began or not chunk.silent
                            if REPLACEMENT_CHARACTER in chunk.text:
                                self._suspect("it wrote bytes that are no text")
                            if chunk.reason is not None:
                                self._deaths_in_a_row = self._failures_in_a_row = 0
                                self._worked = child
                            yield chunk
                    return
                except GarbledOutput as error:
                    self._suspect(error.why)
                    raise
                except EngineFailed as error:
                    self._note_failure(child, error)
                    raise
                except ChildGone as gone:
                    if began or attempt == 2 or self._state is EngineState.STOPPED:
                        raise self._death_error(child, gone) from None
                    await self._wait_for_replacement(child)

    async def _watched(self, child: C, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        async with aclosing(self._stream(child, request)) as chunks:
            while True:
                # The consumer's time does not count: the child is not at fault when a client does not read on.
                with child.heartbeat.working():
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                child.heartbeat.beat()
                yield chunk

    def _note_failure(self, child: C, error: EngineFailed) -> None:
        """Replace a child that lives and fails request after request: it answers pings, so it does not hang.

        One that never answered is not replaced: the next one would fail for the same reason.
        """
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW and child is self._current is self._worked:
            self._worked, self._failures_in_a_row = None, 0
            log.error("the engine (pid %d) fails each request and is ended: %s", child.process.pid, error.cause)
            self._background.spawn(self._end_current(error))

    def _suspect(self, why: str) -> None:
        if self._checks is not None:
            self._checks.suspect(why)

    async def _file_to_load(self, model_path: Path) -> Path:
        """Return the model's file for the next child; without checks it is ``model_path``. Raises UnusableFile."""
        return await asyncio.to_thread(self._checks.model) if self._checks is not None else model_path

    async def _check(self, adapter: AdapterLease) -> None:
        """Raise UnusableFile when the adapter must not be loaded."""
        if self._checks is not None:
            await asyncio.to_thread(self._checks.adapter, adapter)

    def _take_over(self, child: C) -> None:
        """Make ``child`` the serving one and watch it."""
        self._current, self._state, self._last_error = child, EngineState.READY, None
        self._background.spawn(self._watch(child))

    async def _bring_up(self, delay_s: float) -> None:
        """Start the next child after a pause."""
        await asyncio.sleep(delay_s)
        async with self._swap:
            if self._current is not None:  # another swap was under way and has started a child
                return
            try:
                self._take_over(await self._spawn_first())
            except Exception as error:
                self._record_death(start_failure(error))
        await self._announce()

    async def _watch(self, child: C) -> None:
        """Wait for the child's end, end it when it hangs, and start the next one if the end was not intended."""
        try:
            error = await self._end_error(child)
        except Exception as unexpected:  # a child that is not watched must not serve
            log.exception("an engine could not be watched")
            error = start_failure(unexpected)
            child.process.kill()
        if self._state is EngineState.STOPPED or child.retired or child is not self._current:
            return  # the code that requested its end disposes of it
        self._current = None
        self._restarts += 1
        self._record_death(error)
        await self._announce()
        await self._dispose(child)

    async def _end_error(self, child: C) -> EngineFailed:
        """Return the error with which the child ended, by itself or because it hung."""
        ended, hung = (
            asyncio.ensure_future(child.process.wait()),
            asyncio.ensure_future(child.heartbeat.wait_until_hung()),
        )
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
        """End a child and release its resources, whatever goes wrong."""
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
        failed = self._deaths_in_a_row >= MAX_DEATHS_IN_A_ROW or error.is_certain
        self._state = EngineState.FAILED if failed else EngineState.RESTARTING
        self._background.spawn(self._bring_up(BACKOFF_S[min(self._deaths_in_a_row, len(BACKOFF_S)) - 1]))

    async def _wait_for_replacement(self, dead: C) -> None:
        """Wait until the watcher of ``dead`` has taken it out of service; give up when the child turns out to live."""
        async with self._changed:
            try:
                async with asyncio.timeout(BROKEN_CONNECTION_WAIT_S):
                    await self._changed.wait_for(lambda: self._current is not dead)
            except TimeoutError:
                log.warning("the engine (pid %d) lives, but the connection to it broke", dead.process.pid)

    def _is_settled(self) -> bool:
        return self._current is not None or self._state in (EngineState.FAILED, EngineState.STOPPED)

    def _not_ready_error(self) -> PeftDaemonError:
        if self._state is EngineState.STOPPED:
            return Unavailable("the engine is stopped", fix="Start the daemon with `peft-daemon start`")
        return self._last_error or Unavailable("the engine is not ready", fix="Try again in a moment")

    def _death_error(self, child: C, gone: ChildGone) -> EngineFailed:
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
    """Return the failure to start a child as the error that requests and the status report."""
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
