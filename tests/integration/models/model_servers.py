"""A model hub and a package index on this machine, and a tiny model that lies in both."""

from __future__ import annotations

import hashlib
import io
import random
import threading
import zipfile
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import support.tiny_entry
from peft_daemon.models.catalogue import HubLocation, ModelEntry, PackageLocation, WheelPart

PAYLOAD = random.Random(11).randbytes(4_000_000)
PARTS = (PAYLOAD[:1_500_000], PAYLOAD[1_500_000:3_000_000], PAYLOAD[3_000_000:])
HUB = support.tiny_entry.HUB
HUB_PATH = f"/nobody/tiny/resolve/{'0' * 40}/tiny.gguf"


def packages(*, hashes: bool = True) -> PackageLocation:
    """The tiny model in three wheels; without ``hashes`` the catalogue knows only the names."""
    return PackageLocation(
        tuple(
            WheelPart(
                package=f"tiny-part{number}",
                version="1.0",
                member=f"tiny_part{number}/data/part.bin",
                bytes=len(data) if hashes else None,
                sha256=hashlib.sha256(data).hexdigest() if hashes else None,
            )
            for number, data in enumerate(PARTS, start=1)
        )
    )


def tiny_entry(*sources: HubLocation | PackageLocation) -> ModelEntry:
    return support.tiny_entry.tiny_entry(PAYLOAD, *sources)


def wheel(number: int, data: bytes, *, member: str | None = None, code: str = "") -> bytes:
    """A real wheel ``tiny-part<number>`` that holds ``data``; ``code`` is its ``__init__.py``."""
    name, info = f"tiny_part{number}", f"tiny_part{number}-1.0.dist-info"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/__init__.py", code)
        archive.writestr(member or f"{name}/data/part.bin", data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


def wheel_name(number: int) -> str:
    return f"tiny_part{number}-1.0-py3-none-any.whl"


@dataclass
class Reply:
    """How one request is answered; the default is to serve the file as a good server does."""

    status: int = 200
    content: bytes | None = None
    """Instead of the stored file."""
    honour_range: bool = True
    drop_after: int | None = None
    """Close the connection after this many bytes of the body."""
    hold_after: int | None = None
    """Stop after this many bytes of the body until ``release`` is called."""
    content_range: str | None = None
    """Instead of the right header."""


@dataclass
class Served:
    """One finished or broken request."""

    path: str
    range: str | None
    sent: int = 0


@dataclass
class FileServer:
    """A real HTTP server for a set of files, with the faults of ``replies`` in order and good service after them."""

    files: dict[str, bytes] = field(default_factory=dict)
    replies: dict[str, deque[Reply]] = field(default_factory=dict)
    served: list[Served] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.held = threading.Event()
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> FileServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, path: str, *replies: Reply) -> None:
        """Answer the next requests for ``path`` like this."""
        self.replies[path] = deque(replies)

    def release(self) -> None:
        """Let the held answers go on."""
        self._released.set()

    def sent(self, path: str) -> int:
        """Bytes sent of ``path`` over all requests."""
        return sum(served.sent for served in self.served if served.path == path)

    def requests(self, path: str) -> list[Served]:
        return [served for served in self.served if served.path == path]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                waiting = outer.replies.get(self.path)
                reply = waiting.popleft() if waiting else Reply()
                served = Served(self.path, self.headers.get("Range"))
                outer.served.append(served)
                content = reply.content if reply.content is not None else outer.files.get(self.path)
                status = reply.status if content is not None else 404
                self.close_connection = True
                if status != 200 or content is None:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                start = 0
                if served.range and reply.honour_range:
                    start = int(served.range.removeprefix("bytes=").rstrip("-"))
                    self.send_response(206)
                    span = f"bytes {start}-{len(content) - 1}/{len(content)}"
                    self.send_header("Content-Range", reply.content_range or span)
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(content) - start))
                kind = "text/html" if self.path.endswith("/") else "application/octet-stream"
                self.send_header("Content-Type", kind)
                self.end_headers()
                self._send(content[start:], reply, served)

            def _send(self, body: bytes, reply: Reply, served: Served) -> None:
                end = len(body) if reply.drop_after is None else reply.drop_after
                try:
                    if reply.hold_after is not None:
                        self.wfile.write(body[: reply.hold_after])
                        served.sent += reply.hold_after
                        outer.held.set()
                        outer._released.wait()
                    while served.sent < end:
                        chunk = body[served.sent : min(end, served.sent + 65536)]
                        self.wfile.write(chunk)
                        served.sent += len(chunk)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client was killed: that is what some tests are about

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


def publish(server: FileServer, number: int, content: bytes) -> None:
    """Offer ``content`` as the wheel of part ``number``, with the index page pip asks for."""
    name = wheel_name(number)
    server.files[f"/simple/tiny-part{number}/"] = f'<!DOCTYPE html><a href="/wheels/{name}">{name}</a>'.encode()
    server.files[f"/wheels/{name}"] = content
