"""The one way to talk to the daemon from Python: find or start it, send typed requests, survive its restarts.

With ``peft_core.api_types`` this is all a front end imports; what it needs besides is re-exported here. Importing
it is cheap: the HTTP library is loaded while the daemon is being found.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

import msgspec

from peft_core.api_types import (
    PROTOCOL_VERSION,
    AdapterList,
    AdapterSummary,
    CompleteRequest,
    CompleteResponse,
    ContextChanged,
    ContextResponse,
    DeltaEvent,
    EditRequest,
    ErrorEvent,
    FeedbackRequest,
    FeedbackResponse,
    FinalEvent,
    LearningRequest,
    StreamEvent,
    UseAdapterRequest,
    WarmResponse,
)
from peft_core.decisions import DecisionReport, DecisionsTaken, WhyAnswer, WhyQuery
from peft_core.errors import Conflict, EngineFailed, InvalidInput, PeftDaemonError, Unauthorized, Unavailable
from peft_core.http_client import ConnectionLost, ConnectionPool, ConnectionTimeout, HttpResponse, event_data
from peft_core.next_edit_types import NextEditRequest, NextEditResponse
from peft_core.paths import Paths
from peft_core.settings import Settings, resolve
from peft_core.status_types import DaemonStatus, EngineState, LearningStatus
from peft_core.tasks import cancel_and_wait
from peft_core.wire_errors import error_from_body, error_from_response
from peft_daemon.lifecycle.runtime_info import DaemonInfo, find_running_daemon

__all__ = ["CompleteRequest", "CompleteResponse", "DaemonClient", "DeltaEvent", "FinalEvent"]
__all__ += ["PeftDaemonError", "Unavailable", "resolve"]

T = TypeVar("T")

START_TIMEOUT_S = 30.0
"""How long a daemon may take to start."""
CONNECT_TIMEOUT_S = 5.0
QUICK_TIMEOUT_S = 10.0
"""For answers that need no model."""
GRACE_S = 15.0
"""Added to what a daemon may take for a request, in which it is itself to say that it took too long."""
KEEP_ALIVE_S = 30.0
READY_POLL_S = 0.1
LEAVE_POLL_S = 0.02
DYING_S = 0.5
SILENCE_S = 5.0
"""A daemon that says nothing for so long is asked whether it is there at all: a model may take minutes."""
PROBE_S = 10.0
"""How long it may take to answer that."""


@dataclass(frozen=True)
class _Origin:
    """How to find the daemon again after it went away."""

    settings: Settings | None
    paths: Paths
    start: bool
    timeout_s: float
    command: Sequence[str] | None

    def wanted(self) -> Settings:
        """The settings the daemon should run with; read again each time unless the caller gave them."""
        return self.settings if self.settings is not None else resolve(user_file=self.paths.config_file).settings


@dataclass(frozen=True)
class _Connection:
    info: DaemonInfo
    pool: ConnectionPool
    longest_s: float
    """How long a request may take that names no time budget."""


class DaemonAnswer:
    """The answer to one request, waited for until a moment of the event loop's clock and while the daemon is there."""

    def __init__(self, pool: ConnectionPool, until: float) -> None:
        self._pool, self._until = pool, until
        self._response: HttpResponse | None = None

    @property
    def status(self) -> int:
        """The HTTP status, once the head of the answer is here."""
        return 0 if self._response is None else self._response.status_code

    async def head(self, sending: Coroutine[Any, Any, HttpResponse]) -> None:
        """Wait for the head. Raises Unavailable when it takes too long, ConnectionLost when the daemon went away."""
        try:
            self._response = await self.wait(sending)
        except ConnectionTimeout:
            raise _hung("it accepts no connection") from None

    async def read(self) -> bytes:
        """The whole body; raises as ``chunks`` does."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes; raises Unavailable when it breaks off or takes too long."""
        assert self._response is not None  # noqa: S101  (yielded with its head only)
        async with contextlib.aclosing(self._response.aiter_bytes()) as pieces:
            while True:
                try:
                    piece = await self.wait(_next(pieces))
                except ConnectionLost as error:
                    raise Unavailable(
                        "the daemon went away in the middle of an answer", why=str(error), fix="Send the request again"
                    ) from None
                if not piece:
                    return
                yield piece

    async def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``; raises Unavailable when it takes too long."""
        task, loop = asyncio.create_task(work), asyncio.get_running_loop()
        try:
            while True:
                left = self._until - loop.time()
                await asyncio.wait((task,), timeout=max(0.0, min(SILENCE_S, left)))
                if task.done():
                    return task.result()
                if left <= SILENCE_S:
                    raise _hung("it did not answer in the time that it has for that")
                try:
                    await self.probe(min(PROBE_S, left - SILENCE_S))
                except Unavailable:
                    if not task.done():
                        raise
        finally:
            await cancel_and_wait(task)

    async def probe(self, limit_s: float) -> None:
        """Raise Unavailable if the daemon does not answer a request that needs no model."""
        try:
            async with self._pool.send("GET", "/health", read_s=limit_s) as response:
                await response.aread()
        except ConnectionTimeout:
            raise _hung(f"not even a request for its health, for {limit_s:.0f} s") from None
        except ConnectionLost:
            return  # the connection of the request itself says what became of it


def _hung(why: str) -> Unavailable:
    return Unavailable("the daemon does not answer", why=why, fix="`peft-daemon stop` ends it; then try again")


async def _next(pieces: AsyncGenerator[bytes, None]) -> bytes:
    """The next piece that is not empty; nothing behind the last."""
    async for piece in pieces:
        if piece:
            return piece
    return b""


class DaemonClient:
    """A connection to the daemon: ``async with await DaemonClient.connect() as client``.

    Every method raises the ``PeftDaemonError`` the daemon answered with, Unavailable when it does not answer.
    Cancelling the task that awaits a method closes the request, and the daemon stops decoding. When the daemon went
    away since the last request, it is found (and, for ``start=True``, started) again and the request is sent once
    more. Safe to use from many tasks of one event loop.
    """

    def __init__(self, origin: _Origin, connection: _Connection) -> None:
        self._origin = origin
        self._connection = connection
        self._reconnecting = asyncio.Lock()

    @classmethod
    async def connect(
        cls,
        settings: Settings | None = None,
        paths: Paths | None = None,
        *,
        start: bool = True,
        timeout_s: float = START_TIMEOUT_S,
        command: Sequence[str] | None = None,
    ) -> Self:
        """Find the daemon, or start it.

        ``settings`` null: from the environment and the user's file. With ``start`` false a running daemon is taken
        whatever its settings, and none is an error. ``command`` replaces the command line of the daemon.

        Raises Unavailable when there is none and it cannot be started (or ``start`` is false), Conflict when one of
        another version is in the way.
        """
        origin = _Origin(settings, paths or Paths.from_environment(), start, timeout_s, command)
        # Together they take longer to import than the daemon takes to answer.
        loading = asyncio.create_task(asyncio.to_thread(_load_http))
        try:
            info = await _find(origin, replace=True)
        finally:
            await loading
        return cls(origin, _open(info, origin))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections, those in use with their requests; the daemon goes on."""
        self._connection.pool.close()

    def close_unused(self) -> None:
        """Close the connections that no request has now."""
        self._connection.pool.close_unused()

    @property
    def info(self) -> DaemonInfo:
        """The daemon this client talks to now."""
        return self._connection.info

    async def complete(self, request: CompleteRequest) -> CompleteResponse:
        """The completion of a request, in one piece."""
        body = msgspec.json.encode(msgspec.structs.replace(request, stream=False))
        return await self._ask("POST", "/v1/complete", CompleteResponse, body, self._limit_s(request))

    async def stream(self, request: CompleteRequest | EditRequest) -> AsyncGenerator[DeltaEvent | FinalEvent, None]:
        """The answer to a completion or an edit as it is decoded: deltas, then one final event.

        Close the generator (``contextlib.aclosing``) to stop decoding before the end.
        """
        path = "/v1/edit" if isinstance(request, EditRequest) else "/v1/complete"
        body = msgspec.json.encode(msgspec.structs.replace(request, stream=True))
        async with (
            self._send("POST", path, body, self._limit_s(request)) as answer,
            contextlib.aclosing(event_data(answer.chunks())) as events,
        ):
            async for data in events:
                event: StreamEvent = _decode(data, StreamEvent)
                if isinstance(event, ErrorEvent):
                    raise error_from_body(event.error)
                yield event
                if isinstance(event, FinalEvent):
                    return
        raise Unavailable("the daemon ended the stream before the completion", fix="Send the request again")

    async def warm(self, request: CompleteRequest) -> WarmResponse:
        """Have the prompt of a likely request read; end early when a completion or a newer one comes."""
        body = msgspec.json.encode(msgspec.structs.replace(request, stream=False))
        return await self._ask("POST", "/v1/warm", WarmResponse, body, self._limit_s(request))

    async def next_edit(self, request: NextEditRequest) -> NextEditResponse:
        """Return the edit that is likely next, or why none is suggested; any completion goes first."""
        body = msgspec.json.encode(request)
        return await self._ask("POST", "/v1/next-edit", NextEditResponse, body, self._limit_s(request))

    async def record(self, feedback: FeedbackRequest) -> bool:
        """Record the outcome of a suggestion; False where it is recorded already or the daemon records none."""
        body = msgspec.json.encode(feedback)
        return (await self._ask("POST", "/v1/feedback", FeedbackResponse, body)).recorded

    async def status(self) -> DaemonStatus:
        """The state of the daemon and its engine."""
        return await self._ask("GET", "/v1/status", DaemonStatus)

    async def metrics(self) -> str:
        """The daemon's counters, in Prometheus' text format."""
        async with self._send("GET", "/metrics", b"", QUICK_TIMEOUT_S) as answer:
            return (await answer.read()).decode()

    async def adapters(self) -> list[AdapterSummary]:
        """All adapters of this installation."""
        return (await self._ask("GET", "/v1/adapters", AdapterList)).adapters

    async def use_adapter(self, request: UseAdapterRequest) -> None:
        """Choose the adapter of a task, everywhere or below one folder."""
        await self._ask("POST", "/v1/adapters/use", msgspec.Raw, msgspec.json.encode(request))

    async def context_changed(self, told: ContextChanged) -> bool:
        """Report saved files and fresh edits of a workspace; False where the daemon reads nothing of it."""
        body = msgspec.json.encode(told)
        return (await self._ask("POST", "/v1/context/changed", ContextResponse, body)).taken

    async def learning(self, folder: str | None = None) -> LearningStatus:
        """The state of learning in the background, with that of the repository in which ``folder`` lies."""
        query = "" if folder is None else "?" + urlencode({"repository": folder})
        return await self._ask("GET", f"/v1/learning{query}", LearningStatus)

    async def learn(self, request: LearningRequest) -> LearningStatus:
        """Tell what the user wants of learning in the background."""
        return await self._ask("POST", "/v1/learning", LearningStatus, msgspec.json.encode(request))

    async def why(self, query: WhyQuery) -> WhyAnswer:
        """The last decisions about requests, in words."""
        return await self._ask("GET", f"/v1/why?{urlencode(msgspec.structs.asdict(query))}", WhyAnswer)

    async def report_decisions(self, report: DecisionReport) -> None:
        """Tell what a language server decided by itself."""
        await self._ask("POST", "/v1/why", DecisionsTaken, msgspec.json.encode(report))

    async def shutdown(self) -> None:
        """Ask the daemon to stop gracefully; returns when it takes no more requests.

        It may still be answering earlier ones. The next request of a client with ``start`` brings up a new daemon.
        """
        leaving = self.info
        await self._ask("POST", "/v1/shutdown", msgspec.Raw)
        deadline = time.monotonic() + QUICK_TIMEOUT_S
        while find_running_daemon(self._origin.paths) == leaving and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(LEAVE_POLL_S)

    async def wait_ready(self, timeout_s: float) -> DaemonStatus:
        """Wait until the engine can serve.

        Raises EngineFailed with the engine's last error when it gave up, Unavailable after ``timeout_s`` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            status = await self.status()
            engine = status.engine
            if engine.state in (EngineState.READY, EngineState.UNLOADED):
                return status
            if engine.state is EngineState.FAILED:
                raise EngineFailed(f"the {engine.kind} engine cannot run", why=engine.last_error, fix=engine.fix)
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the model was not loaded within {timeout_s:.0f} s",
                    why=engine.last_error or f"the engine is {engine.state}",
                    fix="`peft-daemon status` shows how far it is",
                )
            await asyncio.sleep(READY_POLL_S)

    def _limit_s(self, request: CompleteRequest | EditRequest | NextEditRequest) -> float:
        """How long to wait for the daemon, which should have answered long before."""
        budget_ms = None if isinstance(request, EditRequest) else request.time_budget_ms
        return GRACE_S + (budget_ms / 1000 if budget_ms else self._connection.longest_s)

    async def _ask(
        self, method: str, path: str, kind: type[T], body: bytes = b"", limit_s: float = QUICK_TIMEOUT_S
    ) -> T:
        """Send a request and decode its answer; raises as ``_send`` does."""
        async with self._send(method, path, body, limit_s) as answer:
            value: T = _decode(await answer.read(), kind)
            return value

    @contextlib.asynccontextmanager
    async def _send(self, method: str, path: str, body: bytes, limit_s: float) -> AsyncIterator[DaemonAnswer]:
        """Send a request, once more if the daemon went away before it answered; yields the answer with its head.

        Raises the error of an error status, and Unavailable when the whole takes longer than ``limit_s`` or the daemon
        does not answer even a probe.
        """
        until = asyncio.get_running_loop().time() + limit_s
        headers = {"Content-Type": "application/json"} if body else {}
        connection, gone = self._connection, ""
        for attempt in (1, 2):
            answer = DaemonAnswer(connection.pool, until)
            async with contextlib.AsyncExitStack() as stack:
                try:
                    sending = connection.pool.send(method, path, content=body, headers=headers)
                    await answer.head(stack.enter_async_context(sending))
                    # Refused with a token: a fixed port, and another daemon behind it by now.
                    stranger = answer.status == Unauthorized.status and connection.info.token
                    gone = "the daemon does not know this client's token" if stranger else ""
                except ConnectionLost as error:
                    gone = str(error)
                if not gone:
                    if answer.status >= 400:
                        raise error_from_response(await answer.read(), answer.status)
                    yield answer
                    return
            if attempt == 1:
                connection = await self._reconnect(connection)
        raise Unavailable("the daemon does not accept requests", why=gone, fix="`peft-daemon status` shows its state")

    async def _reconnect(self, broken: _Connection) -> _Connection:
        async with self._reconnecting:
            if self._connection is broken:
                # A dying process looks alive for a moment; asked again too soon it would be found again.
                await broken.info.process.ends_within(DYING_S)
                # Another client may have restarted the daemon its way: no tug of war over it.
                self._connection = _open(await _find(self._origin, replace=False), self._origin)
                # The daemon that leaves may still be answering on some of the old connections.
                broken.pool.close()
            return self._connection


async def _find(origin: _Origin, *, replace: bool) -> DaemonInfo:
    if origin.start:
        from peft_daemon.lifecycle.start import DAEMON_COMMAND, ensure_running  # noqa: PLC0415

        return await ensure_running(
            origin.wanted(),
            origin.paths,
            timeout_s=origin.timeout_s,
            command=origin.command or DAEMON_COMMAND,
            replace=replace,
        )
    info = find_running_daemon(origin.paths)
    if info is None or not info.is_reachable():
        raise Unavailable("no daemon runs", fix="`peft-daemon start` starts it")
    if info.protocol != PROTOCOL_VERSION:
        raise Conflict(
            f"the daemon is peft-daemon {info.version} and speaks another protocol than this client",
            why=f"its protocol is {info.protocol}, this client's {PROTOCOL_VERSION}",
            fix="Use the newer of the two installations, or restart a client that outlived an update",
        )
    return info


def _load_http() -> None:
    importlib.import_module("h11")
    importlib.import_module("psutil")


def _open(info: DaemonInfo, origin: _Origin) -> _Connection:
    # Not with each request, which would take milliseconds of each key.
    settings = Settings()
    with contextlib.suppress(InvalidInput):  # a running daemon serves whatever became of the file
        settings = origin.wanted()
    headers = {"Authorization": f"Bearer {info.token}"} if info.token else {}
    pool = ConnectionPool(info.address, headers=headers, connect_s=CONNECT_TIMEOUT_S, keep_alive_s=KEEP_ALIVE_S)
    return _Connection(info, pool, max(settings.request_limit_s, settings.time_budget_fill_ms / 1000))


def _decode(data: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:
        raise PeftDaemonError(
            "the daemon's answer cannot be read", why=str(error), fix="`peft-daemon stop`, then `peft-daemon start`"
        ) from None
