"""The connection to the daemon, which is made in the background, and the status that the editor shows.

Editing must never wait for the daemon: without an answer now, a completion is None, and the status says why. Explicit
commands use ``client()`` and get the daemon's own errors. ``peft_daemon.client`` starts the daemon if necessary.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from enum import StrEnum

import msgspec

from peft_core.api_types import (
    CompleteRequest,
    CompleteResponse,
    ContextChanged,
    EditRequest,
    FeedbackRequest,
    FinalEvent,
    FinishReason,
    LearningRequest,
)
from peft_core.decisions import DecisionReport, RequestDecision, WhyAnswer, WhyQuery
from peft_core.errors import Conflict, PeftDaemonError, Unavailable, error_line
from peft_core.next_edit_types import NextEditRequest, NextEditResponse
from peft_core.paths import Paths
from peft_core.status_types import EngineState, LearningStatus
from peft_core.tasks import BackgroundTasks
from peft_daemon.client import DaemonClient
from peft_daemon.lifecycle.runtime_info import find_running_daemon

log = logging.getLogger(__name__)

POLL_S = 0.25
"""How often a daemon that loads its model is asked for its status."""
RETRY_S = 10.0
"""After an error, how long no new connection is tried."""
READY_TIMEOUT_S = 120.0
"""Longest time for loading the model."""
CANCEL_AFTER_S = 0.25
"""A cancelled request is ended after this delay: the next key's request may continue its answer."""
UNFINISHED_REASONS = frozenset({FinishReason.SUPERSEDED, FinishReason.CANCELLED})


class ServerState(StrEnum):
    """State of the service, as a status bar shows it."""

    OFF = "off"
    """Switched off in the editor's settings."""
    LOADING = "loading"
    """The daemon or its model is starting: completions are empty until it is ready."""
    IDLE = "idle"
    THINKING = "thinking"
    """The model works on a request."""
    ERROR = "error"
    """``message`` says what is wrong and what to do."""


class DocumentOff(msgspec.Struct, frozen=True):
    """An open document without suggestions, and why it has none."""

    uri: str
    why: str


class Status(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Parameters of the notification."""

    state: ServerState
    model: str = ""
    adapter: str = ""
    """Adapter of the last answer; empty: none."""
    latency_ms: int | None = None
    """Time until the last answer came, measured here."""
    message: str = ""
    off: tuple[DocumentOff, ...] = ()
    """Open documents in which suggestions are off, by their kind or by a setting."""
    learning: str = ""
    """What is learned in the background, or was lately; empty: nothing."""


class StatusBoard:
    """The status of the settings, the daemon and the running requests; reports each change once."""

    def __init__(self, report: Callable[[Status], None]) -> None:
        self._report = report
        self._enabled = True
        self._daemon = ServerState.LOADING
        self._active = 0
        self._shown: Status | None = None
        self._facts = Status(state=ServerState.LOADING)

    @property
    def status(self) -> Status:
        """The status now."""
        state = ServerState.OFF if not self._enabled else self._daemon
        if state is ServerState.IDLE and self._active:
            state = ServerState.THINKING
        return msgspec.structs.replace(self._facts, state=state)

    def enable(self, enabled: bool) -> None:
        """Note that the settings switched completion on or off."""
        self._enabled = enabled
        self._update()

    def daemon(self, state: ServerState, *, model: str | None = None, message: str = "") -> None:
        """Note that the daemon is LOADING, IDLE (ready) or in ERROR."""
        self._daemon = state
        self._update(model=self._facts.model if model is None else model, message=message)

    def documents(self, off: Iterable[DocumentOff]) -> None:
        """Note in which open documents suggestions are off."""
        self._update(off=tuple(off))

    def learning(self, line: str) -> None:
        """Note what is learned in the background."""
        self._update(learning=line)

    @contextmanager
    def thinking(self) -> Iterator[None]:
        """Note that a request is with the model while this is open."""
        self._active += 1
        self._update()
        try:
            yield
        finally:
            self._active -= 1
            self._update()

    def answered(self, response: CompleteResponse, latency_ms: float) -> None:
        """Note that the model answered."""
        self._daemon = ServerState.IDLE
        adapter = response.adapter.name if response.adapter else ""
        self._update(model=response.model, adapter=adapter, latency_ms=round(latency_ms), message="")

    def _update(self, **facts: object) -> None:
        self._facts = msgspec.structs.replace(self._facts, **facts)
        if self.status != self._shown:
            self._shown = self.status
            self._report(self.status)


class DaemonConnection:
    """One connection to the daemon, shared by all requests of this editor."""

    def __init__(
        self,
        board: StatusBoard,
        connect: Callable[[], Awaitable[DaemonClient]] = DaemonClient.connect,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board = board
        self._connect = connect
        self._clock = clock
        self._client: DaemonClient | None = None
        self._connecting: asyncio.Task[DaemonClient] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._asking = BackgroundTasks(log, "a request to the daemon failed", Exception)
        self._retry_at = -math.inf

    def start(self) -> None:
        """Begin to connect, and to watch the daemon until its model is loaded; returns at once."""
        running = self._watching is not None and not self._watching.done()
        if not running and self._clock() >= self._retry_at:
            self._watching = asyncio.create_task(self._watch())

    async def client(self) -> DaemonClient:
        """Return the connected client; raises the PeftDaemonError that keeps it from connecting."""
        if self._client is None:
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._open())
            # A cancelled request must not tear down the connection that others wait for.
            return await asyncio.shield(self._connecting)
        return self._client

    async def complete(
        self, request: CompleteRequest, on_unused: Callable[[CompleteResponse], None] = lambda _: None
    ) -> CompleteResponse | None:
        """Return the model's answer; None if there is none now.

        Cancelling stops the model a moment later, unless a newer request for the document continues its answer.
        ``on_unused`` is called with an answer that comes within that moment.
        """
        if self._client is None or self._board.status.state is ServerState.LOADING:
            self.start()
            return None
        began = self._clock()
        try:
            with self._board.thinking():
                response = await self._ask(self._client, request, on_unused)
        except Unavailable as error:
            log.info("%s", error.line)
            self._board.daemon(ServerState.LOADING, message=error.line)
            self._retry_at = -math.inf  # it did answer
            self.start()
            return None
        except Conflict as error:
            # A daemon of another version took its place. A new connection replaces it, but not at every keystroke.
            self._fail(error.line)
            await self._drop()
            return None
        except PeftDaemonError as error:
            self._board.daemon(ServerState.ERROR, message=error.line)
            return None
        if response.finish_reason not in UNFINISHED_REASONS:
            self._board.answered(response, 1000 * (self._clock() - began))
        return response

    @property
    def trouble(self) -> str:
        """Why the daemon gives no answer, in words."""
        status = self._board.status
        starting = "it is starting, or loads its model" if status.state is ServerState.LOADING else ""
        return status.message or starting or "it did not say why"

    async def generate(
        self,
        request: CompleteRequest | EditRequest,
        on_message: Callable[[str], None],
        on_text: Callable[[str], None] = lambda _: None,
    ) -> CompleteResponse:
        """Return an answer that the user waits for; report its progress to ``on_message`` and its text to ``on_text``.

        Raises PeftDaemonError if the daemon cannot answer.
        """
        client = await self.client()
        on_message("waiting for the model")
        await client.wait_ready(READY_TIMEOUT_S)
        characters = 0
        with self._board.thinking():
            async with aclosing(client.stream(request)) as events:
                async for event in events:
                    if isinstance(event, FinalEvent):
                        return event.response
                    characters += len(event.text)
                    on_message(f"{characters} characters")
                    on_text(event.text)
        raise AssertionError("a stream ends with a final event or an error")

    async def complete_in_background(self, request: CompleteRequest) -> CompleteResponse | None:
        """Return the model's answer, or None, without showing the work in the status."""
        if self._client is None:
            return None
        try:
            return await self._ask(self._client, request, lambda _: None)
        except PeftDaemonError as error:
            log.info("%s", error.line)
            return None

    async def next_edit(self, request: NextEditRequest) -> NextEditResponse | None:
        """Return the next edit, or why there is none; None if the daemon cannot be asked now.

        Cancelling ends the search. The status does not show it, and errors are only logged.
        """
        if self._client is None or self._board.status.state is ServerState.LOADING:
            self.start()
            return None
        try:
            return await self._client.next_edit(request)
        except PeftDaemonError as error:
            log.info("no next edit: %s", error.line)
            return None

    async def warm(self, request: CompleteRequest) -> bool:
        """Have the prompt of a likely request read once the model is loaded; return whether it was read.

        The status does not show it, and errors are only logged.
        """
        if self._client is None or self._board.status.state is ServerState.LOADING:
            self.start()
            if self._watching is not None:
                await asyncio.wait((self._watching,))
        if self._client is None:
            return False
        try:
            return (await self._client.warm(request)).warm
        except PeftDaemonError as error:
            log.info("%s", error.line)
            return False

    async def record(self, feedback: FeedbackRequest) -> None:
        """Report the outcome of a suggestion; a record that cannot be sent now is lost."""
        if self._client is None:
            return
        try:
            await self._client.record(feedback)
        except PeftDaemonError as error:
            log.info("feedback was lost: %s", error.line)

    async def context_changed(self, change: ContextChanged) -> None:
        """Report edits and saved files; what cannot be sent now comes with the next report."""
        if self._client is None:
            return
        try:
            await self._client.context_changed(change)
        except PeftDaemonError as error:
            log.info("changes were not reported: %s", error.line)

    async def learning(self, folder: str | None) -> LearningStatus | None:
        """Return what the daemon says of learning in the background; None if it does not run, or answers nothing."""
        if not await self._is_running():
            return None
        try:
            return await (await self.client()).learning(folder)
        except PeftDaemonError as error:
            log.info("%s", error.line)
            return None

    async def report_decisions(self, decisions: Sequence[RequestDecision]) -> bool:
        """Tell the daemon what was decided here; return whether it was told. It is not started for this."""
        if not await self._is_running():
            return False
        try:
            await (await self.client()).report_decisions(DecisionReport(list(decisions)))
        except PeftDaemonError as error:
            log.info("%s", error.line)
            return False
        return True

    async def why(self, query: WhyQuery) -> WhyAnswer | None:
        """Return the last decisions in words; None if no daemon runs, or it does not answer."""
        if not await self._is_running():
            return None
        try:
            return await (await self.client()).why(query)
        except PeftDaemonError as error:
            log.info("%s", error.line)
            return None

    async def _is_running(self) -> bool:
        """Return whether this connection's daemon runs; a request to one that has left would start another."""
        if self._client is None:
            return False
        return await asyncio.to_thread(find_running_daemon, Paths.from_environment()) == self._client.info

    async def learn(self, request: LearningRequest) -> LearningStatus | None:
        """Tell what the user wants of learning in the background; None if that could not be told."""
        if self._client is None:
            return None
        try:
            return await self._client.learn(request)
        except PeftDaemonError as error:
            log.warning("%s", error.line)
            return None

    async def restart(self) -> None:
        """End the daemon, start a new one and wait until its model is loaded. Raises PeftDaemonError."""
        client = await self.client()
        self._board.daemon(ServerState.LOADING, message="restarting")
        try:
            await client.shutdown()
            status = await client.wait_ready(READY_TIMEOUT_S)
        except PeftDaemonError as error:
            self._fail(error.line)
            raise
        self._retry_at = -math.inf
        self._board.daemon(ServerState.IDLE, model=status.model)

    async def close(self) -> None:
        """Close the connection; the daemon keeps running."""
        for task in (self._watching, self._connecting):
            if task is not None:
                task.cancel()
        self._watching = self._connecting = None
        self._asking.cancel()
        await self._drop()

    async def _ask(
        self, client: DaemonClient, request: CompleteRequest, on_unused: Callable[[CompleteResponse], None]
    ) -> CompleteResponse:
        asking = self._asking.spawn(client.complete(request))

        def ended(task: asyncio.Task[CompleteResponse]) -> None:
            if not task.cancelled() and task.exception() is None:
                on_unused(task.result())

        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(ended)
            asyncio.get_running_loop().call_later(CANCEL_AFTER_S, asking.cancel)
            raise

    async def _drop(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    async def _open(self) -> DaemonClient:
        try:
            self._client = await self._connect()
            return self._client
        finally:
            self._connecting = None

    async def _watch(self) -> None:
        self._board.daemon(ServerState.LOADING)
        try:
            client = await self.client()
            while True:
                status = await client.status()
                if status.engine.state in (EngineState.READY, EngineState.UNLOADED):
                    self._board.daemon(ServerState.IDLE, model=status.model)
                    return
                if status.engine.state in (EngineState.FAILED, EngineState.STOPPED):
                    why = error_line(status.engine.last_error, status.engine.fix)
                    self._fail(why or "the engine does not run", status.model)
                    return
                self._board.daemon(ServerState.LOADING, model=status.model)
                await asyncio.sleep(POLL_S)
        except PeftDaemonError as error:
            self._fail(error.line)
        except Exception as error:  # after any error, the status must not say "loading" for ever
            log.exception("the daemon cannot be reached")
            self._fail(f"the daemon cannot be reached: {error}")

    def _fail(self, message: str, model: str | None = None) -> None:
        self._retry_at = self._clock() + RETRY_S
        self._board.daemon(ServerState.ERROR, model=model, message=message)
