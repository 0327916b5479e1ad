"""Requests in flight: counted for the idle exit, and ended with an error when the daemon stops or they take too long.

Used from the event loop's thread only.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from peft_core.api_types import ErrorEvent
from peft_core.errors import Unavailable
from peft_core.wire_errors import ErrorBody, ErrorResponse, error_body

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Activity:
    """Count requests, so that an unused daemon can exit, and carry a route's request to stop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_flight = 0
        self._last = clock()
        self._stop_requested = False

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Count one request for the duration of the block."""
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self._last = self._clock()

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        return self._in_flight

    @property
    def idle_s(self) -> float:
        """Seconds since the last request ended (or since the start); 0 while one is in flight."""
        return 0.0 if self._in_flight else self._clock() - self._last

    def request_stop(self) -> None:
        """Ask the server to stop gracefully; returns at once, so that the asking request is still answered."""
        self._stop_requested = True

    def should_stop(self, idle_exit_s: float) -> bool:
        """Whether the daemon should exit: it was asked to, or idle for ``idle_exit_s`` seconds (0: never idle)."""
        return self._stop_requested or (idle_exit_s > 0 and self.idle_s >= idle_exit_s)


class UnfinishedRequestMiddleware:
    """ASGI middleware that answers requests which the stopping server cancels, or which take longer than ``limit_s``.

    The answer is a 503, or an error event in a stream, instead of a broken connection. ``limit_s`` is the last resort:
    the application should have ended the request before.
    """

    def __init__(self, app: ASGIApp, limit_s: float | None = None) -> None:
        self._app, self._limit_s = app, limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the wrapped application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        content_type: bytes | None = None

        async def watch(message: Message) -> None:
            nonlocal content_type
            if message["type"] == "http.response.start":
                content_type = dict(message.get("headers", [])).get(b"content-type", b"")
            await send(message)

        limit = asyncio.timeout(self._limit_s)
        try:
            async with limit:
                await self._app(scope, receive, watch)
        except (asyncio.CancelledError, TimeoutError) as error:
            if isinstance(error, TimeoutError) and not limit.expired():
                raise
            body = _stopping_error() if isinstance(error, asyncio.CancelledError) else _time_limit_error(self._limit_s)
            if content_type is None:
                await _send_error(send, body)
            elif content_type.startswith(b"text/event-stream"):
                event = msgspec.json.encode(ErrorEvent(body))
                await send({"type": "http.response.body", "body": b"data: " + event + b"\n\n"})
            else:
                raise


async def _send_error(send: Send, body: ErrorBody) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": Unavailable.status, "headers": headers})
    await send({"type": "http.response.body", "body": msgspec.json.encode(ErrorResponse(body))})


def _stopping_error() -> ErrorBody:
    return error_body(Unavailable("the daemon is stopping", fix="Send the request again; a client starts a new daemon"))


def _time_limit_error(limit_s: float | None) -> ErrorBody:
    return error_body(
        Unavailable(
            f"the request was not done within {limit_s or 0:.0f} s",
            fix="Send it again; `peft-daemon status` shows what the daemon does",
        )
    )


QUIET_PATHS = frozenset({"/health", "/metrics", "/v1/status"})
"""Watching the daemon is not using it: these do not keep it from its idle exit."""


class CountActivity:
    """ASGI middleware that keeps the daemon alive while it is used."""

    def __init__(self, app: ASGIApp, *, activity: Activity) -> None:
        self._app, self._activity = app, activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counted unless it only watches."""
        if scope["type"] != "http" or scope["path"] in QUIET_PATHS:
            await self._app(scope, receive, send)
            return
        with self._activity.busy():
            await self._app(scope, receive, send)
