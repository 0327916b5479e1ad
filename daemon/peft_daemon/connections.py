"""HTTP connections that are closed with their request, however that ends, and server-sent events.

httpx's own pool loses a connection, and with it a file descriptor, when a request is cancelled at the wrong moment:
just after its connection was opened, or while its answer is being closed. Here each connection belongs to one request
at a time, and closing it does not wait for anything, so that no cancellation can come in between.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

MAX_UNUSED = 8
"""Unused connections that are kept for the next request."""


class ConnectionPool:
    """Connections to one server, each used by one request at a time.

    ``socket`` is the path of a unix socket, if the server has one. Unused connections are kept for ``keep_alive_s``.
    """

    def __init__(self, base_url: str, *, socket: str | None, headers: Mapping[str, str], keep_alive_s: float) -> None:
        import ssl  # noqa: PLC0415

        import httpx  # noqa: PLC0415  (0.2 s, which importing this module must not cost)

        # Never used, but made anyway; this one trusts nobody and loads no certificates (20 ms).
        no_certificates = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

        def connect() -> httpx.AsyncClient:
            return httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=socket, verify=no_certificates),
                base_url=base_url,
                headers=headers,
                # The environment's proxies are for the outside world; a token must never reach one.
                trust_env=False,
            )

        self.connect: Callable[[], httpx.AsyncClient] = connect
        """Makes a client for one connection."""
        self._keep_alive_s = keep_alive_s
        self._unused: deque[tuple[float, httpx.AsyncClient]] = deque()
        """When each is to be closed, the earliest first."""
        self._closed = False

    @asynccontextmanager
    async def send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None,
        timeouts: httpx.Timeout,
        headers: Mapping[str, str] | None = None,
        keep: bool = True,
    ) -> AsyncGenerator[httpx.Response, None]:
        """Send a request and give the head of its answer; raises what httpx raises.

        The connection is closed when the block ends, unless ``keep`` is set and the answer was read to its end.
        """
        await self._close_expired(until=time.monotonic())
        http = self._unused.pop()[1] if self._unused else self.connect()
        read = False
        try:
            request = http.build_request(method, path, content=content, headers=headers, timeout=timeouts)
            response = await http.send(request, stream=True)
            yield response
            read = response.is_closed
        finally:
            if keep and read and not self._closed and len(self._unused) < MAX_UNUSED:
                self._unused.append((time.monotonic() + self._keep_alive_s, http))
            else:
                await http.aclose()

    async def close_unused(self) -> None:
        """Close the connections that no request has now."""
        await self._close_expired(until=float("inf"))

    async def aclose(self) -> None:
        """Close the unused connections now, each other one with its request."""
        self._closed = True
        await self.close_unused()

    async def _close_expired(self, until: float) -> None:
        while self._unused and self._unused[0][0] <= until:
            await self._unused.popleft()[1].aclose()


async def event_data(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The ``data`` lines of a server-sent event stream whose events are one line of JSON each."""
    # Split at line feeds alone: text libraries also split at U+2028 and the like, which code may contain.
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip()
