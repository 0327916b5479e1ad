"""From bytes to typed values and back: bodies, JSON answers, event streams and errors, for all routes alike."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from peft_core.api_types import ErrorEvent
from peft_core.errors import Cancelled, InvalidInput, NotFound, PeftDaemonError, Unavailable
from peft_core.tasks import cancel_and_wait
from peft_core.wire_errors import ErrorResponse, http_error_body

log = logging.getLogger("peft_daemon.requests")

T = TypeVar("T")

END_OF_STREAM = b"[DONE]"
"""The last event of a stream to OpenAI's clients."""


async def body(request: Request, kind: type[T]) -> T:
    """The request's body as a validated ``kind``; raises InvalidInput saying which field is wrong."""
    try:
        raw = await request.body()
    except ClientDisconnect:
        raise Cancelled("the client hung up before its request was whole") from None
    try:
        return msgspec.json.decode(raw, type=kind)
    except (ValueError, RecursionError) as error:
        fix = f"See `{request.url.path}` in docs/api.md"
        raise InvalidInput("the request body is not valid", why=str(error), fix=fix) from None


def query(request: Request, kind: type[T]) -> T:
    """The request's query as a validated ``kind``; raises InvalidInput saying which parameter is wrong."""
    try:
        return msgspec.convert(dict(request.query_params), kind, strict=False)
    except msgspec.ValidationError as error:
        fix = f"See `{request.url.path}` in docs/api.md"
        raise InvalidInput("the request's query is not valid", why=str(error), fix=fix) from None


def answer(value: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def error_response(error: PeftDaemonError) -> Response:
    """The error as an HTTP answer."""
    response = answer(ErrorResponse(http_error_body(error)), error.status)
    if error.status == 503:
        response.headers["Retry-After"] = "1"
    return response


async def event_stream(request: Request, events: AsyncGenerator[bytes, None], *, last: bytes = b"") -> Response:
    """Server-sent events; each item is one event's data, ``last`` comes after all of them.

    The first event is awaited before the answer begins, so that a request which cannot be served gets its status.
    What breaks later ends the stream with an event ``{"type": "error", "error": {...}}``.
    """
    first = await while_connected(request, anext(events))
    return EventStreamResponse(request, first, events, last)


class EventStreamResponse(Response):
    """Server-sent events, sent for as long as the client listens; ``events`` is closed however that ends."""

    media_type = "text/event-stream"

    def __init__(self, request: Request, first: bytes, events: AsyncGenerator[bytes, None], last: bytes) -> None:
        super().__init__(headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]  # nobody knows it yet
        self._request, self._first, self._events, self._last = request, first, events, last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head and all events."""
        async with aclosing(self._events):
            with suppress(Cancelled):  # nobody is left to be told
                await while_connected(self._request, self._send(send))

    async def _send(self, send: Send) -> None:
        async def send_event(data: bytes) -> None:
            await send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send_event(self._first)
        try:
            async for data in self._events:
                await send_event(data)
        except PeftDaemonError as error:
            _log_failure(error)
            await send_event(msgspec.json.encode(ErrorEvent(http_error_body(error))))
        if self._last:
            await send_event(self._last)
        await send({"type": "http.response.body", "body": b""})


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of ``work``, cancelled as soon as the client hangs up (raises Cancelled then)."""
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Cancelled("the client hung up")
        return task.result()
    finally:
        await cancel_and_wait(task, gone)


async def _disconnected(request: Request) -> None:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return


class WrongMethod(PeftDaemonError):
    """The route exists, but not for this method."""

    code, status = "wrong_method", 405


async def _known_error(request: Request, error: Exception) -> Response:
    """Answer with an error that says itself what to do."""
    assert isinstance(error, PeftDaemonError)  # noqa: S101  (registered for it alone)
    _log_failure(error)
    return error_response(error)


def _log_failure(error: PeftDaemonError) -> None:
    """Write an error into the log that is not the client's; an engine that is not there yet is no fault."""
    if error.status >= 500:
        log.log(logging.INFO if isinstance(error, Unavailable) else logging.WARNING, "%s", error.line)


async def _router_error(request: Request, error: Exception) -> Response:
    """Answer to an unknown path, or a method the path does not have."""
    assert isinstance(error, HTTPException)  # noqa: S101  (registered for it alone)
    path = request.url.path[:200]
    if error.status_code == 404:
        return error_response(NotFound(f"no route {path}", fix="docs/api.md lists the routes"))
    return error_response(WrongMethod(f"{request.method} {path}: {error.detail}", fix="docs/api.md lists the routes"))


async def _unexpected_error(request: Request, error: Exception) -> Response:
    """Answer to a fault of the daemon; the log has its trace."""
    return error_response(PeftDaemonError("the daemon failed", why=repr(error)[:500], fix="Run `peft-daemon doctor`"))


ERROR_HANDLERS: Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    PeftDaemonError: _known_error,
    HTTPException: _router_error,
    Exception: _unexpected_error,
}
