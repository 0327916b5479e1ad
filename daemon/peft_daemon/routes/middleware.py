"""What every request passes before a handler sees it, from the outside in: an id, a time limit, access, and a count.

The id is in the header `X-Request-Id` of the answer, in the lines of the log that belong to the request, and in
`peft-daemon why`.
The time limit also covers the end of the daemon: a request that is cancelled by it gets an error for an answer. Access
means Host, Origin, token and size. The unix socket is private by file mode; TCP is private by token. Host and Origin
are checked on both, so that a web page can never speak to the daemon, not even through a name that resolves to this
machine. Requests are counted for the idle exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
import uuid
from collections.abc import Callable, Iterator

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peft_core.api_types import MAX_BODY, ErrorEvent
from peft_core.errors import Forbidden, PeftDaemonError, TooLarge, Unauthorized, Unavailable
from peft_core.wire_errors import http_error_body
from peft_daemon.daemon_log import REQUEST_ID
from peft_daemon.routes.responses import error_response

log = logging.getLogger("peft_daemon.requests")

MAX_PATH_SHOWN = 200
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "peft-daemon"})
OPEN_PATHS = frozenset({"/health"})
"""Answered without a token; they say only whether something serves here."""
QUIET_PATHS = frozenset({"/health", "/metrics", "/openapi.json", "/v1/status", "/v1/learning", "/v1/why"})
"""Requests that watch the daemon. They do not keep it from its idle exit."""


class RequestIdMiddleware:
    """ASGI middleware that gives each request an id, and writes into the log how it ended."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the wrapped application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, request_id = time.perf_counter(), 0, uuid.uuid4().hex

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
                message = {**message, "headers": headers}
            await send(message)

        before = REQUEST_ID.set(request_id)
        try:
            await self._app(scope, receive, with_id)
        finally:
            spent_ms = 1000 * (time.perf_counter() - began)
            level = logging.INFO if status >= 400 else logging.DEBUG
            log.log(level, "%s %s: %d in %.0f ms", scope["method"], scope["path"][:MAX_PATH_SHOWN], status, spent_ms)
            REQUEST_ID.reset(before)


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
        except (asyncio.CancelledError, TimeoutError) as cause:
            if isinstance(cause, TimeoutError) and not limit.expired():
                raise
            error = self._too_late() if isinstance(cause, TimeoutError) else _stopping()
            if content_type is None:
                response = error_response(error)
                response.headers["Connection"] = "close"
                await response(scope, receive, send)
            elif content_type.startswith(b"text/event-stream"):
                event = msgspec.json.encode(ErrorEvent(http_error_body(error)))
                await send({"type": "http.response.body", "body": b"data: " + event + b"\n\n"})
            else:
                raise

    def _too_late(self) -> Unavailable:
        return Unavailable(
            f"the request was not done within {self._limit_s or 0:.0f} s",
            fix="Send it again; `peft-daemon status` shows what the daemon does",
        )


def _stopping() -> Unavailable:
    return Unavailable("the daemon is stopping", fix="Send the request again; a client starts a new daemon")


class AccessMiddleware:
    """ASGI middleware that refuses requests from elsewhere, without the token, or with too large a body.

    ``token`` None means that the transport itself is private.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, max_body: int = MAX_BODY) -> None:
        self._app, self._token, self._max_body = app, token, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        if error := self._refuse(scope["path"], headers):
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, _Limited(receive, self._max_body), send)

    def _refuse(self, path: str, headers: dict[bytes, bytes]) -> PeftDaemonError | None:
        host = headers.get(b"host", b"").decode("latin-1")
        if _name(host) not in LOCAL_NAMES:
            return Forbidden(f"Host '{host[:100]}' is not this machine", fix="Use 127.0.0.1 or localhost")
        origin = headers.get(b"origin")
        if origin is not None:
            return Forbidden("requests from web pages are refused", why=f"Origin {origin[:100].decode('latin-1')}")
        if self._token is not None and path not in OPEN_PATHS:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._token.encode()):
                return Unauthorized(
                    "wrong or missing token",
                    fix="Send `Authorization: Bearer TOKEN`; `peft-daemon status --json --show-token` prints it",
                )
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._max_body:
            return _too_large(self._max_body)
        return None


class _Limited:
    """``receive`` that stops a body without a declared length at the limit too."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._left, self._limit = receive, limit, limit

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise _too_large(self._limit)
        return message


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the request is larger than {limit // 1_000_000} MB", fix="Send only the text around the cursor")


def _name(host: str) -> str:
    """The host name without its port."""
    if host.startswith("["):
        name, end, rest = host.partition("]")
        return name + end if not rest or rest.startswith(":") else host
    return host.rsplit(":", 1)[0] if ":" in host else host


class Activity:
    """Count requests, so that an unused daemon can exit and background work gives way; carry a route's wish to stop.

    Used from the event loop's thread only.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_flight = 0
        self._last = clock()
        self._stop_requested = False
        self._on_request: Callable[[], object] = lambda: None
        self._is_needed: Callable[[], bool] = lambda: False

    def serve_background_work(self, on_request: Callable[[], object], is_needed: Callable[[], bool]) -> None:
        """Call ``on_request`` when a request begins, and do not exit for idleness while ``is_needed``."""
        self._on_request, self._is_needed = on_request, is_needed

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Count one request for the duration of the block."""
        self._in_flight += 1
        self._on_request()
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
        idle = idle_exit_s > 0 and self.idle_s >= idle_exit_s
        return self._stop_requested or (idle and not self._is_needed())


class ActivityMiddleware:
    """ASGI middleware that counts requests, except those that only watch the daemon."""

    def __init__(self, app: ASGIApp, *, activity: Activity) -> None:
        self._app, self._activity = app, activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or scope["path"] in QUIET_PATHS:
            await self._app(scope, receive, send)
            return
        with self._activity.busy():
            await self._app(scope, receive, send)
