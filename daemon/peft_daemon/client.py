"""The one way to talk to the daemon from Python: find or start it, send typed requests, survive its restarts.

With ``peft_core.api_types`` this is all a front end imports; what it needs besides is re-exported here. Importing
it is cheap: the HTTP library is loaded while the daemon is being found.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from peft_core.api_types import (
    AdapterSummary,
    CompleteRequest,
    CompleteResponse,
    ContextChanged,
    ContextResponse,
    DaemonStatus,
    DeltaEvent,
    EngineState,
    ErrorEvent,
    FeedbackRequest,
    FeedbackResponse,
    FinalEvent,
    StreamEvent,
    UseAdapterRequest,
    WarmResponse,
)
from peft_core.errors import Conflict, EngineFailed, InvalidInput, PeftDaemonError, Unauthorized, Unavailable
from peft_core.http_client import ConnectionPool, event_data
from peft_core.paths import Paths
from peft_core.settings import Resolved, Settings, resolve
from peft_core.wire_errors import error_from_body, error_from_response
from peft_daemon.exchange import DaemonAnswer, Vanished, exchange
from peft_daemon.lifecycle.runtime_info import DaemonInfo, find_running_daemon

__all__ = [
    "AdapterSummary",
    "CompleteRequest",
    "CompleteResponse",
    "Conflict",
    "DaemonClient",
    "DaemonInfo",
    "DaemonStatus",
    "DeltaEvent",
    "EngineFailed",
    "EngineState",
    "FinalEvent",
    "InvalidInput",
    "Paths",
    "PeftDaemonError",
    "Resolved",
    "Settings",
    "Unauthorized",
    "Unavailable",
    "UseAdapterRequest",
    "resolve",
]

T = TypeVar("T")

START_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5.0
QUICK_TIMEOUT_S = 10.0
"""For answers that need no model."""
GRACE_S = 15.0
"""Added to what a daemon may take for a request, in which it is itself to say that it took too long."""
KEEP_ALIVE_S = 30.0
READY_POLL_S = 0.1
LEAVE_POLL_S = 0.02
DYING_S = 0.5


class _Adapters(msgspec.Struct, frozen=True):
    adapters: list[AdapterSummary]


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

    def exchange(self, method: str, path: str, body: bytes, until: float) -> AbstractAsyncContextManager[DaemonAnswer]:
        """Send once; see ``exchange.exchange``."""
        return exchange(self.pool, method, path, body, until=until, with_token=bool(self.info.token))


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

    @property
    def info(self) -> DaemonInfo:
        """The daemon this client talks to now."""
        return self._connection.info

    async def complete(self, request: CompleteRequest) -> CompleteResponse:
        """The completion of a request, in one piece."""
        body = msgspec.json.encode(msgspec.structs.replace(request, stream=False))
        return await self._call("POST", "/v1/complete", CompleteResponse, body, self._limit_s(request))

    async def stream(self, request: CompleteRequest) -> AsyncGenerator[DeltaEvent | FinalEvent, None]:
        """The completion of a request as it is decoded: deltas, then one final event.

        Close the generator (``contextlib.aclosing``) to stop decoding before the end.
        """
        body = msgspec.json.encode(msgspec.structs.replace(request, stream=True))
        async with (
            self._send("POST", "/v1/complete", body, self._limit_s(request)) as answer,
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
        """Have the prompt of a likely request read; ends early when a completion or a newer one comes."""
        body = msgspec.json.encode(msgspec.structs.replace(request, stream=False))
        return await self._call("POST", "/v1/warm", WarmResponse, body, self._limit_s(request))

    async def record(self, feedback: FeedbackRequest) -> bool:
        """Tell what became of a suggestion; False where it is recorded already or the daemon records none."""
        body = msgspec.json.encode(feedback)
        return (await self._call("POST", "/v1/feedback", FeedbackResponse, body)).recorded

    async def status(self) -> DaemonStatus:
        """What the daemon and its engine are doing."""
        return await self._call("GET", "/v1/status", DaemonStatus)

    async def adapters(self) -> list[AdapterSummary]:
        """All adapters of this installation."""
        return (await self._call("GET", "/v1/adapters", _Adapters)).adapters

    async def use_adapter(self, request: UseAdapterRequest) -> None:
        """Choose the adapter of a task, everywhere or below one folder."""
        await self._call("POST", "/v1/adapters/use", msgspec.Raw, msgspec.json.encode(request))

    async def context_changed(self, told: ContextChanged) -> bool:
        """Tell what an editor did in a workspace; False where the daemon reads nothing of it."""
        body = msgspec.json.encode(told)
        return (await self._call("POST", "/v1/context/changed", ContextResponse, body)).taken

    async def shutdown(self) -> None:
        """Ask the daemon to stop gracefully; returns when it takes no more requests.

        It may still be answering earlier ones. The next request of a client with ``start`` brings up a new daemon.
        """
        leaving = self.info
        await self._call("POST", "/v1/shutdown", msgspec.Raw)
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
            if engine.state is EngineState.READY:
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

    def _limit_s(self, request: CompleteRequest) -> float:
        """How long the daemon is waited for; it should have answered long before."""
        return GRACE_S + (request.time_budget_ms / 1000 if request.time_budget_ms else self._connection.longest_s)

    async def _call(
        self, method: str, path: str, kind: type[T], body: bytes = b"", limit_s: float = QUICK_TIMEOUT_S
    ) -> T:
        async with self._send(method, path, body, limit_s) as answer:
            value: T = _decode(await answer.read(), kind)
            return value

    @contextlib.asynccontextmanager
    async def _send(self, method: str, path: str, body: bytes, limit_s: float) -> AsyncIterator[DaemonAnswer]:
        """Send a request, once more if the daemon went away; yields the answer's head, raises for an error status.

        Raises Unavailable when the whole takes longer than ``limit_s``, or the daemon does not answer even a probe.
        """
        connection, until = self._connection, asyncio.get_running_loop().time() + limit_s
        async with contextlib.AsyncExitStack() as stack:
            try:
                answer = await stack.enter_async_context(connection.exchange(method, path, body, until))
            except Vanished:
                connection = await self._reconnect(connection)
                try:
                    answer = await stack.enter_async_context(connection.exchange(method, path, body, until))
                except Vanished as again:
                    raise Unavailable(
                        "the daemon does not accept requests",
                        why=str(again),
                        fix="`peft-daemon status` shows its state",
                    ) from None
            if answer.response.status_code >= 400:
                raise error_from_response(await answer.read(), answer.response.status_code)
            yield answer

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
    if not info.has_same_version():
        raise Conflict(
            f"the daemon is peft-daemon {info.version}, this client is another version",
            fix="`peft-daemon start` replaces it",
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
