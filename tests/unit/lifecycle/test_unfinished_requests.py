"""What a request hears when the server cancels it: the ASGI messages, one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from peft_core.api_types import ErrorEvent, StreamEvent
from peft_core.wire_errors import ErrorResponse
from peft_daemon.routes.middleware import UnfinishedRequestMiddleware

Send = Callable[[dict[str, Any]], Awaitable[None]]


async def cancelled(*before: dict[str, Any]) -> list[dict[str, Any]]:
    """Messages sent by a request that is cancelled after it sent ``before``."""
    sent: list[dict[str, Any]] = []
    stuck = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Send) -> None:
        for message in before:
            await send(message)
        stuck.set()
        await asyncio.Event().wait()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    task = asyncio.ensure_future(UnfinishedRequestMiddleware(app)({"type": "http"}, None, send))
    await stuck.wait()
    task.cancel()
    await task
    return sent[len(before) :]


def start(content_type: bytes) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]}


async def test_promise_13_before_the_answer_it_is_a_503() -> None:
    head, body = await cancelled()
    assert head["status"] == 503
    error = msgspec.json.decode(body["body"], type=ErrorResponse).error
    assert (error.code, error.what) == ("unavailable", "the daemon is stopping")


async def test_promise_13_in_a_stream_it_is_an_event() -> None:
    [message] = await cancelled(start(b"text/event-stream; charset=utf-8"))
    assert message["body"].startswith(b"data: ")
    assert message["body"].endswith(b"\n\n")
    event = msgspec.json.decode(message["body"][6:], type=StreamEvent)
    assert isinstance(event, ErrorEvent)
    assert not message.get("more_body")


async def test_promise_13_another_answer_is_cut_not_falsified() -> None:
    with pytest.raises(asyncio.CancelledError):
        await cancelled(start(b"application/json"))


async def test_other_failures_and_the_lifespan_pass_through() -> None:
    async def app(scope: Any, receive: Any, send: Send) -> None:
        raise KeyError(scope["type"])

    for kind in ("http", "lifespan"):
        with pytest.raises(KeyError, match=kind):
            await UnfinishedRequestMiddleware(app)({"type": kind}, None, None)


async def test_promise_24_what_takes_too_long_is_ended_and_told() -> None:
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Send) -> None:
        await asyncio.Event().wait()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await UnfinishedRequestMiddleware(app, 0.01)({"type": "http"}, None, send)
    head, body = sent
    assert head["status"] == 503
    assert "not done within" in msgspec.json.decode(body["body"], type=ErrorResponse).error.what


async def test_promise_24_a_timeout_of_the_applications_own_passes_through() -> None:
    async def app(scope: Any, receive: Any, send: Send) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await UnfinishedRequestMiddleware(app, 10)({"type": "http"}, None, None)
