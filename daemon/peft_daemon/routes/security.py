"""What every request must pass before a handler sees it: Host, Origin, token and size.

The unix socket is private by file mode; TCP is private by token. Host and Origin are checked on both, so that a web
page can never speak to the daemon, not even through a name that resolves to this machine.
"""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peft_core.api_types import MAX_BODY
from peft_core.errors import Forbidden, PeftDaemonError, TooLarge, Unauthorized
from peft_daemon.routes.responses import error_response

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "peft-daemon"})
OPEN_PATHS = frozenset({"/health"})
"""Answered without a token: whether something serves here, nothing else."""


class Gate:
    """ASGI middleware; ``token`` None means that the transport itself is private."""

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
        return host[: host.find("]") + 1]
    return host.rsplit(":", 1)[0] if ":" in host else host
