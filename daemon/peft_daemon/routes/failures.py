"""Every way a request can fail, as an answer of one shape."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from peft_core.errors import NotFound, PeftDaemonError
from peft_daemon.routes.responses import error_response


class WrongMethod(PeftDaemonError):
    """The route exists, but not for this method."""

    code, status = "wrong_method", 405


async def known(request: Request, error: Exception) -> Response:
    """An error that says itself what to do."""
    assert isinstance(error, PeftDaemonError)  # noqa: S101  (registered for it alone)
    return error_response(error)


async def http(request: Request, error: Exception) -> Response:
    """What the router itself refuses: an unknown path, or a method the path does not have."""
    assert isinstance(error, HTTPException)  # noqa: S101  (registered for it alone)
    path = request.url.path[:200]
    if error.status_code == 404:
        return error_response(NotFound(f"no route {path}", fix="docs/api.md lists the routes"))
    return error_response(WrongMethod(f"{request.method} {path}: {error.detail}", fix="docs/api.md lists the routes"))


async def unexpected(request: Request, error: Exception) -> Response:
    """A fault of ours; the log has its trace."""
    return error_response(PeftDaemonError("the daemon failed", why=repr(error)[:500], fix="Run `peft-daemon doctor`"))


FAILURES: Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    PeftDaemonError: known,
    HTTPException: http,
    Exception: unexpected,
}
