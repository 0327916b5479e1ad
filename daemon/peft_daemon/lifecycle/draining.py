"""What a request hears that the stopping daemon cancels, or that takes too long: an error, not a broken connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from peft_core.api_types import ErrorBody, ErrorEvent, ErrorResponse
from peft_core.errors import Unavailable
from peft_daemon.lifecycle.told_errors import body_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class AnswerWhenStopping:
    """ASGI middleware: a request the stopping server cancels ends with 503, or an error event if it is a stream.

    So does one that takes longer than ``limit_s``, whatever it waits for; those below it should have ended it before.
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
            body = _body() if isinstance(error, asyncio.CancelledError) else _late(self._limit_s)
            if content_type is None:
                await _answer(send, body)
            elif content_type.startswith(b"text/event-stream"):
                event = msgspec.json.encode(ErrorEvent(body))
                await send({"type": "http.response.body", "body": b"data: " + event + b"\n\n"})
            else:
                raise


async def _answer(send: Send, body: ErrorBody) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": Unavailable.status, "headers": headers})
    await send({"type": "http.response.body", "body": msgspec.json.encode(ErrorResponse(body))})


def _body() -> ErrorBody:
    return body_of(Unavailable("the daemon is stopping", fix="Send the request again; a client starts a new daemon"))


def _late(limit_s: float | None) -> ErrorBody:
    return body_of(
        Unavailable(
            f"the request was not done within {limit_s or 0:.0f} s",
            fix="Send it again; `peft-daemon status` shows what the daemon does",
        )
    )
