"""HTTP connections that never stay open after a cancelled request, and server-sent events.

The connection pools of libraries can lose a connection, and with it a file descriptor, when a request is cancelled just
after its connection was opened, or while its answer is being closed. Here a connection belongs to one request at a
time, and closing it does not wait for anything, so that no cancellation can interrupt it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from ssl import SSLContext

    import h11

MAX_IDLE_CONNECTIONS = 8
"""Unused connections that are kept for the next request."""
READ_BYTES = 65_536


class ConnectionLost(Exception):
    """The server cannot be reached, closed the connection too early, or does not speak HTTP."""


class ConnectionTimeout(ConnectionLost):
    """The server did not answer in time."""


@dataclass(frozen=True)
class ServerAddress:
    """Where a server listens, and the headers of every request to it."""

    url: str
    """``unix://PATH``, ``http://HOST:PORT`` or ``https://HOST:PORT``; the certificate of the last is verified."""
    headers: Mapping[str, str]

    @property
    def host(self) -> str:
        """The ``Host`` header."""
        return "localhost" if self.url.startswith("unix:") else urlsplit(self.url).netloc

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect; raises OSError."""
        if self.url.startswith("unix:"):
            return await asyncio.open_unix_connection(self.url.removeprefix("unix:").removeprefix("//"))
        parts = urlsplit(self.url)
        if parts.scheme != "https":
            return await asyncio.open_connection(parts.hostname, parts.port or 80)
        return await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=_verifying_context())


@cache
def _verifying_context() -> SSLContext:
    """Return the context for TLS with the system's certificates, which take long to load."""
    import ssl  # noqa: PLC0415  (importing this module must be cheap)

    return ssl.create_default_context()


class HttpConnection:
    """One connection, for one request after another; connecting and each write may take ``connect_s`` seconds."""

    def __init__(self, address: ServerAddress, connect_s: float) -> None:
        self._address, self._connect_s = address, connect_s
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._state: h11.Connection | None = None

    @property
    def usable(self) -> bool:
        """Whether a request can be sent: it is new, or still open after an answer that was read to its end."""
        return self._streams is None or not (self._streams[0].at_eof() or self._streams[1].is_closing())

    async def send(
        self, method: str, path: str, *, content: bytes, headers: Mapping[str, str], read_s: float | None
    ) -> HttpResponse:
        """Send a request and return its answer once the head has arrived.

        Each wait for more of the answer may take ``read_s`` seconds. Raises ConnectionLost, and its subclass
        ConnectionTimeout.
        """
        import h11  # noqa: PLC0415  (importing this module must be cheap)

        async with _limit(self._connect_s):
            reader, writer = self._streams = self._streams or await self._address.open()
        if self._state is None:
            self._state = h11.Connection(h11.CLIENT)
        else:
            self._state.start_next_cycle()
        sent = {"Host": self._address.host, **self._address.headers, **headers, "Content-Length": str(len(content))}
        request = h11.Request(method=method, target=path, headers=list(sent.items()))
        events = (request, h11.Data(content), h11.EndOfMessage())
        writer.writelines([data for event in events if (data := self._state.send(event))])
        async with _limit(self._connect_s):
            await writer.drain()
        response = HttpResponse(self._state, reader, read_s)
        await response.read_head()
        return response

    def close(self) -> None:
        """Close it at once; unsent data is dropped."""
        if self._streams is not None:
            self._streams[1].transport.abort()


class HttpResponse:
    """The answer to one request."""

    def __init__(self, state: h11.Connection, reader: asyncio.StreamReader, read_s: float | None) -> None:
        self._state, self._reader, self._read_s = state, reader, read_s
        self.status_code = 0
        self.content_type = ""
        self.is_closed = False
        """Whether it was read to its end, and the connection can be used again."""

    async def read_head(self) -> None:
        """Read status and headers; raises as ``aiter_bytes`` does."""
        import h11  # noqa: PLC0415

        while not isinstance(event := await self._event(), h11.Response):
            if isinstance(event, h11.ConnectionClosed):
                raise ConnectionLost("the server closed the connection without an answer")
        self.status_code = event.status_code
        self.content_type = next((v.decode("latin-1") for k, v in event.headers if k == b"content-type"), "")

    async def aiter_bytes(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives; raises ConnectionLost, and its subclass ConnectionTimeout."""
        import h11  # noqa: PLC0415

        while isinstance(event := await self._event(), h11.Data):
            yield bytes(event.data)
        self.is_closed = self._state.our_state is h11.DONE and self._state.their_state is h11.DONE

    async def aread(self) -> bytes:
        """Read the whole body; raises as ``aiter_bytes`` does."""
        return b"".join([piece async for piece in self.aiter_bytes()])

    async def _event(self) -> h11.Event:
        import h11  # noqa: PLC0415

        try:
            while (event := self._state.next_event()) is h11.NEED_DATA:
                async with _limit(self._read_s):
                    data = await self._reader.read(READ_BYTES)
                self._state.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise ConnectionLost(str(error)) from None
        assert isinstance(event, h11.Event)  # noqa: S101  (PAUSED is for servers)
        return event


@asynccontextmanager
async def _limit(seconds: float | None) -> AsyncGenerator[None, None]:
    """Raise ConnectionTimeout if the block takes longer, ConnectionLost for an OSError in it."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ConnectionTimeout(f"no answer within {seconds} s") from None
    except OSError as error:
        raise ConnectionLost(str(error) or type(error).__name__) from None


class ConnectionPool:
    """Connections to one server, each used by one request at a time; unused ones are kept for ``keep_alive_s``."""

    def __init__(self, url: str, *, headers: Mapping[str, str], connect_s: float, keep_alive_s: float) -> None:
        address = ServerAddress(url, headers)
        self.connect: Callable[[], HttpConnection] = lambda: HttpConnection(address, connect_s)
        """Creates a connection, which opens with its first request."""
        self._keep_alive_s = keep_alive_s
        self._unused: deque[tuple[float, HttpConnection]] = deque()
        """Unused connections with the time at which each is closed, the earliest first."""
        self._closed = False

    @asynccontextmanager
    async def send(
        self,
        method: str,
        path: str,
        *,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        read_s: float | None = None,
        keep: bool = True,
    ) -> AsyncGenerator[HttpResponse, None]:
        """Send a request; the block gets its answer once the head has arrived.

        The connection is closed when the block ends, unless ``keep`` is set and the answer was read to its end. Raises
        as ``HttpConnection.send`` does.
        """
        connection = self._take()
        read = False
        try:
            response = await connection.send(method, path, content=content, headers=headers or {}, read_s=read_s)
            yield response
            read = response.is_closed
        finally:
            if keep and read and not self._closed and len(self._unused) < MAX_IDLE_CONNECTIONS:
                self._unused.append((time.monotonic() + self._keep_alive_s, connection))
            else:
                connection.close()

    def close_unused(self) -> None:
        """Close the connections that no request uses now."""
        while self._unused:
            self._unused.popleft()[1].close()

    def close(self) -> None:
        """Close the unused connections now, and each other one when its request ends."""
        self._closed = True
        self.close_unused()

    def _take(self) -> HttpConnection:
        while self._unused and self._unused[0][0] <= time.monotonic():
            self._unused.popleft()[1].close()
        while self._unused:
            connection = self._unused.pop()[1]
            if connection.usable:
                return connection
            connection.close()
        return self.connect()


async def event_data(chunks: AsyncIterator[bytes], prefix: bytes = b"data:") -> AsyncGenerator[bytes, None]:
    """Yield the data of server-sent events, each of which is one line of JSON.

    An empty ``prefix`` is for streams whose lines are JSON and nothing else.
    """
    # Split at line feeds only: text libraries also split at U+2028 and the like, which code may contain.
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip() and line.startswith(prefix):
                yield line.removeprefix(prefix).strip()
