"""Download one file over HTTP: resumed with Range requests, retried, its sha256 known when it is complete.

A partial file is always a beginning of the final bytes. Each source appends the same bytes in the same order, so one
source can continue where another stopped, and a killed process loses only the bytes that it was receiving.

Uses plain GET requests, which mirrors of a model hub serve too: no hub client, no cache, no credentials.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol
from urllib.parse import urlsplit

import msgspec

import peft_core
from peft_core.errors import InvalidInput
from peft_core.files import format_bytes

if TYPE_CHECKING:
    import httpx

HUB_OFFLINE = "HF_HUB_OFFLINE"
"""Environment variable by which users, and we, keep huggingface_hub and what builds on it offline."""
_LIBRARIES_OFFLINE = "PEFT_DAEMON_LIBRARIES_OFFLINE"
"""Set where it was not the user; child processes inherit both."""
DEFAULT_HUB = "https://huggingface.co"
CHUNK_BYTES = 1 << 20
"""Bytes read or written at a time."""
CONNECT_TIMEOUT_S = 5.0
MAX_DOCUMENT_BYTES = 20_000_000
READ_TIMEOUT_S = 30.0
"""Longest silence of a server that has answered."""
MAX_FRUITLESS_ATTEMPTS = 3
"""Attempts in a row that bring nothing new before a download is given up."""
RETRY_WAIT_S = 0.5
"""Pause before the second attempt; it doubles with each further one that brings nothing."""

_CONTENT_RANGE = re.compile(r"^bytes (\d+)-\d+/(\d+)$")


class TransferFailed(Exception):
    """The file could not be fetched; the text is one line for the user."""


class _Retry(Exception):
    """The attempt failed in a way that another one may not."""


class DownloadProgress(Protocol):
    """Receives the progress of one download, always in the thread that downloads."""

    def note(self, text: str) -> None:
        """Receive a line worth showing: a source is tried, a source failed, another process is waited for."""

    def advance(self, done: int, total: int) -> None:
        """Receive that ``done`` of ``total`` bytes have arrived; may go back when a source has to start over."""


class NoProgress:
    """Shows nothing."""

    def note(self, text: str) -> None:
        """Ignore the line."""

    def advance(self, done: int, total: int) -> None:
        """Ignore the numbers."""


class PartialFile:
    """An append-only file at ``path`` (created when missing); a context manager that closes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        # Unbuffered: after a kill the file holds all that was received, and the write itself reports a full disk.
        self._file = path.open("r+b", buffering=0)
        self._hash: hashlib._Hash | None = None

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def size(self) -> int:
        """Bytes held so far."""
        return os.fstat(self._file.fileno()).st_size

    def append(self, data: bytes) -> None:
        """Add the next bytes; raises OSError when the disk takes no more."""
        running = self._running_hash()
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except BaseException:
            self._hash = None  # an unknown share of ``data`` was written
            raise
        running.update(data)

    def cut(self, size: int) -> None:
        """Forget everything after the first ``size`` bytes."""
        if size != self.size:
            self._file.truncate(size)
            self._hash = None

    def sha256(self) -> str:
        """Hex sha256 of all bytes held."""
        return self._running_hash().hexdigest()

    def sha256_between(self, start: int, end: int) -> str:
        """Hex sha256 of the bytes from ``start`` up to ``end``, both at most ``size``."""
        self._hash = None
        self._file.seek(start)
        return _digest(self._file, end - start).hexdigest()

    def sync(self) -> None:
        """Ask the system to write everything to the disk now."""
        os.fsync(self._file.fileno())

    def _running_hash(self) -> hashlib._Hash:
        if self._hash is None:
            self._file.seek(0)
            self._hash = _digest(self._file, self.size)
        return self._hash


def _digest(file: BinaryIO, length: int) -> hashlib._Hash:
    result = hashlib.sha256()
    while length and (data := file.read(min(CHUNK_BYTES, length))):
        result.update(data)
        length -= len(data)
    return result


def keep_libraries_offline(environ: MutableMapping[str, str]) -> None:
    """Keep libraries from asking the model hub by themselves; what the user asks for is fetched all the same."""
    if not is_hub_offline(environ):
        environ[HUB_OFFLINE] = environ[_LIBRARIES_OFFLINE] = "1"


def is_hub_offline(environ: Mapping[str, str]) -> bool:
    """Whether the user wants nothing from the model hub, by ``HF_HUB_OFFLINE``."""
    closed = environ.get(HUB_OFFLINE, "").strip().lower() in ("1", "true", "yes", "on")
    return closed and not environ.get(_LIBRARIES_OFFLINE)


def hub_endpoint(environ: Mapping[str, str]) -> str:
    """Return the address of the model hub, which ``HF_ENDPOINT`` moves.

    Raises InvalidInput if it is no http(s) URL.
    """
    endpoint = environ.get("HF_ENDPOINT") or DEFAULT_HUB
    address = urlsplit(endpoint)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise InvalidInput(
            f"HF_ENDPOINT is not an address: {endpoint!r}", fix=f"Unset it, or give one like {DEFAULT_HUB}"
        )
    return endpoint.rstrip("/")


def download(url: str, partial: PartialFile, progress: DownloadProgress, *, size: int | None = None) -> None:
    """Append the rest of the file at ``url`` to ``partial``; ``size`` is that of the whole file, where it is known.

    Raises TransferFailed, or OSError when the disk takes no more. In both cases, as after an interruption, ``partial``
    is still a beginning of the file.
    """
    import httpx  # noqa: PLC0415  (slow to import, needed only here)

    before = best = partial.size
    fruitless = 0
    with _client() as client:
        while size is None or partial.size < size:
            try:
                if _receive(client, url, partial, progress, size):
                    return
                reason = "the connection ended early"
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.ProxyError) as error:
                if partial.size == before:
                    raise TransferFailed(f"cannot connect ({_one_line(error)})") from None
                reason = _one_line(error)
            except (httpx.HTTPError, httpx.InvalidURL, _Retry) as error:
                reason = _one_line(error)
            if size is not None and partial.size >= size:
                return
            fruitless = 0 if partial.size > best else fruitless + 1
            best = max(best, partial.size)
            if fruitless >= MAX_FRUITLESS_ATTEMPTS:
                raise TransferFailed(reason)
            host = httpx.URL(url).host or "hub"
            progress.note(f"{host}: {reason}; going on at {format_bytes(partial.size)}")
            time.sleep(RETRY_WAIT_S * 2 ** max(fruitless - 1, 0))


def get_json(url: str) -> object:
    """Return the JSON document at ``url``.

    Raises TransferFailed, also where it is over ``MAX_DOCUMENT_BYTES``.
    """
    _, body = _get(url)
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        raise TransferFailed("the answer is not JSON") from None


def get_page(url: str) -> tuple[str, str]:
    """Return the address at which ``url`` was found after redirects, and the text there; raises like ``get_json``."""
    address, body = _get(url)
    return address, body.decode(errors="replace")


def _get(url: str) -> tuple[str, bytes]:
    import httpx  # noqa: PLC0415

    body = bytearray()
    with _client() as client:
        try:
            with client.stream("GET", url) as response:
                if response.status_code != 200:
                    raise TransferFailed(f"HTTP {response.status_code} for {_path(url)}")
                for data in response.iter_bytes():
                    body += data
                    if len(body) > MAX_DOCUMENT_BYTES:
                        raise TransferFailed(f"{_path(url)} is longer than {format_bytes(MAX_DOCUMENT_BYTES)}")
                return str(response.url), bytes(body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TransferFailed(f"cannot connect ({_one_line(error)})") from None


def _client() -> httpx.Client:
    import httpx  # noqa: PLC0415

    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    headers = {"User-Agent": f"peft-daemon/{peft_core.__version__}", "Accept-Encoding": "identity"}
    try:
        return httpx.Client(
            timeout=timeout, follow_redirects=True, headers=headers, event_hooks={"response": [_refuse_downgrade]}
        )
    except (ValueError, OSError, ImportError) as error:  # a proxy or certificate setting that cannot be used
        raise TransferFailed(f"cannot set up the connection ({error})") from None


def _refuse_downgrade(response: httpx.Response) -> None:
    """Raise httpx.RequestError for a redirect from an address whose server is known to one where anybody answers."""
    import httpx  # noqa: PLC0415

    if response.has_redirect_location and response.url.scheme == "https":
        target = response.url.join(response.headers["location"])
        if target.scheme != "https":
            why = f"{response.url.host} sends on to an address without TLS"
            raise httpx.RequestError(why, request=response.request)


def _receive(
    client: httpx.Client, url: str, partial: PartialFile, progress: DownloadProgress, size: int | None
) -> bool:
    """Make one request and append its bytes; return whether the file is complete, as far as anybody has said."""
    start = partial.size
    headers = {"Range": f"bytes={start}-"} if start else {}
    with client.stream("GET", url, headers=headers) as response:
        status = response.status_code
        if status == 416:
            # The server's file ends before ours: one of the two is another file, so start over.
            partial.cut(0)
            raise _Retry("the server has fewer bytes than are here")
        if status == 429 or status >= 500:
            raise _Retry(f"HTTP {status}")
        if status not in (200, 206):
            raise TransferFailed(f"HTTP {status} for {_path(url)}")
        if status == 200 and start:
            partial.cut(0)
        announced = _announced_size(response, start)
        if size is not None and announced not in (None, size):
            raise TransferFailed(f"offers {announced} bytes, {_path(url)} has {size}")
        expected = announced if size is None else size
        # Without a chunk size: httpx would hold back what does not fill one, and lose it when the connection breaks.
        for data in response.iter_raw():
            if expected is not None and partial.size + len(data) > expected:
                partial.cut(0)
                raise TransferFailed(f"sends more than the {expected} bytes of {_path(url)}")
            partial.append(data)
            progress.advance(partial.size, expected or partial.size)
    return expected is None or partial.size == expected


def _announced_size(response: httpx.Response, start: int) -> int | None:
    """Return the size of the whole file by the answer's headers.

    Raises _Retry for another range than asked for.
    """
    if response.status_code == 200:
        length = response.headers.get("content-length", "")
        return int(length) if length.isdigit() else None
    match = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
    if match is None or int(match[1]) != start:
        raise _Retry("answered with another range than was asked for")
    return int(match[2])


def _path(url: str) -> str:
    """Return the repository and the name of a hub's file, as users know them."""
    path = url.split("://", 1)[-1].partition("/")[2]
    return re.sub(r"/resolve/[^/]+/", "/", path)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
