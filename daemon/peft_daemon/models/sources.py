"""The interface of a source: append the rest of a model to a partial file, or say in one line why not."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import peft_core
from peft_core.files import file_sha256, format_bytes
from peft_core.http_download import CHUNK, PartialFile
from peft_core.progress import Progress
from peft_daemon.models.catalogue import HubLocation, ModelEntry

if TYPE_CHECKING:
    import httpx


class SourceFailed(Exception):
    """This source cannot deliver; the text is one line for the user. The next source may."""


class ModelSource(Protocol):
    """Where a model's bytes can come from."""

    name: str
    """For people: ``huggingface.co``, ``package index``, a path."""
    scratch_bytes: int
    """Disk needed in the partial file's folder besides the model itself."""

    def fetch(self, partial: PartialFile, progress: Progress) -> None:
        """Append to ``partial`` until it holds the whole model.

        What ``partial`` holds already is kept as far as the source can build on it. Raises SourceFailed, or OSError
        when the disk takes no more; in both cases, as on an interruption, ``partial`` is still a prefix to resume from.
        """


# A model file that is already on this machine, e.g. carried over on a disk: it is copied, never moved or linked.


class LocalFileSource:
    """Copies ``path``; another file than the catalogue's is refused before a byte is written."""

    scratch_bytes = 0

    def __init__(self, entry: ModelEntry, path: Path) -> None:
        self.name = str(path)
        self._entry, self._path = entry, path

    def fetch(self, partial: PartialFile, progress: Progress) -> None:
        """Copy the file; see ``Source.fetch``."""
        total = self._entry.bytes
        self._check()
        # What a download got so far is given up only now that the copy is known to be good.
        partial.cut(0)
        with self._path.open("rb", buffering=0) as source:
            while partial.size < total and (data := source.read(CHUNK)):
                partial.append(data)
                progress.advance(partial.size, total)
        if partial.size < total:
            raise SourceFailed("became shorter while it was read")

    def _check(self) -> None:
        total = self._entry.bytes
        try:
            if not self._path.is_file():
                raise SourceFailed("there is no such file")
            if (size := self._path.stat().st_size) != total:
                raise SourceFailed(f"has {size} bytes, {self._entry.file} has {total} ({format_bytes(total)})")
            if file_sha256(self._path) != self._entry.sha256:
                raise SourceFailed(f"is not {self._entry.file}: its sha256 differs from the catalogue's")
        except OSError as error:
            raise SourceFailed(f"cannot be read ({error.strerror})") from None


# One file of a model hub repository over HTTP, resumed with Range requests.
#
# Speaks the hub's plain ``/{repository}/resolve/{revision}/{file}`` route, which mirrors serve too; no hub client, no
# cache of its own, no credentials.

DEFAULT_ENDPOINT = "https://huggingface.co"
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
MAX_ATTEMPTS = 3
"""Tries in a row that bring nothing new before the source is given up."""
RETRY_WAIT_S = 0.5
"""Pause before the second try; doubles with every further one."""

_CONTENT_RANGE = re.compile(r"^bytes (\d+)-\d+/(\d+)$")


class _Retry(Exception):
    """The try failed in a way that another one may not."""


class HubSource:
    """Downloads from ``endpoint`` (scheme and host, as in ``HF_ENDPOINT``)."""

    scratch_bytes = 0

    def __init__(self, entry: ModelEntry, location: HubLocation, *, endpoint: str) -> None:
        self.name = urlsplit(endpoint).hostname or "hub"
        self._entry = entry
        self._what = f"{location.repository}/{location.file}"
        self._url = f"{endpoint.rstrip('/')}/{location.repository}/resolve/{location.revision}/{location.file}"

    def fetch(self, partial: PartialFile, progress: Progress) -> None:
        """Download the rest; see ``Source.fetch``."""
        import httpx  # noqa: PLC0415  (slow to import, needed only here)

        total = self._entry.bytes
        before = best = partial.size
        barren = 0
        timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        agent = {"User-Agent": f"peft-daemon/{peft_core.__version__}", "Accept-Encoding": "identity"}
        try:
            client = httpx.Client(timeout=timeout, follow_redirects=True, headers=agent)
        except (ValueError, OSError, ImportError) as error:  # a proxy or certificate setting that cannot be used
            raise SourceFailed(f"cannot set up the connection ({error})") from None
        with client:
            while partial.size < total:
                try:
                    self._stream(client, partial, progress)
                    reason = "the connection ended early"
                except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.ProxyError) as error:
                    if partial.size == before:
                        raise SourceFailed(f"cannot connect ({_one_line(error)})") from None
                    reason = _one_line(error)
                except (httpx.HTTPError, httpx.InvalidURL, _Retry) as error:
                    reason = _one_line(error)
                barren = 0 if partial.size > best else barren + 1
                best = max(best, partial.size)
                if partial.size < total:
                    if barren >= MAX_ATTEMPTS:
                        raise SourceFailed(reason)
                    progress.note(f"{self.name}: {reason}; going on at {format_bytes(partial.size)}")
                    time.sleep(RETRY_WAIT_S * 2 ** max(barren - 1, 0))

    def _stream(self, client: httpx.Client, partial: PartialFile, progress: Progress) -> None:
        start, total = partial.size, self._entry.bytes
        headers = {"Range": f"bytes={start}-"} if start else {}
        with client.stream("GET", self._url, headers=headers) as response:
            status = response.status_code
            if status == 416:
                # The server's file ends before ours: one of the two is not the model, so start over.
                partial.cut(0)
                raise _Retry("the server has fewer bytes than are here")
            if status == 429 or status >= 500:
                raise _Retry(f"HTTP {status}")
            if status not in (200, 206):
                raise SourceFailed(f"HTTP {status} for {self._what}")
            if status == 200 and start:
                partial.cut(0)
            expected = _announced_total(response, start)
            if expected not in (None, total):
                raise SourceFailed(f"offers {expected} bytes, {self._entry.file} has {total}")
            for data in response.iter_raw():
                if partial.size + len(data) > total:
                    partial.cut(0)
                    raise SourceFailed(f"sends more than the {total} bytes of {self._entry.file}")
                partial.append(data)
                progress.advance(partial.size, total)


def _announced_total(response: httpx.Response, start: int) -> int | None:
    """Bytes of the whole file according to the answer's headers; raises _Retry if it is not the range asked for."""
    if response.status_code == 200:
        length = response.headers.get("content-length", "")
        return int(length) if length.isdigit() else None
    match = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
    if match is None or int(match[1]) != start:
        raise _Retry("answered with another range than was asked for")
    return int(match[2])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
