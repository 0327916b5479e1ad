"""One file of a data set repository on the hub, at a pinned commit, into the cache: resumed, checked, all or nothing.

Speaks the hub's plain ``/datasets/{repository}/resolve/{commit}/{file}`` route, which mirrors serve too; no hub client,
no credentials, and no code from the repository. The commit pins the content as far as the hub is trusted; where the
file's sha256 is known, that is checked as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import peft_core
from peft_core.files import format_bytes, is_full, sync_folder
from peft_core.http_download import PartialFile
from peft_core.progress import Progress

if TYPE_CHECKING:
    import httpx

DEFAULT_ENDPOINT = "https://huggingface.co"
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
ATTEMPTS = 3
"""Connections in a row that bring nothing new before the hub is given up."""
_RANGE = re.compile(r"^bytes (\d+)-\d+/(\d+)$")


class HubFailed(Exception):
    """The file could not be had; the text is one line for the user."""


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file in a repository, and what is known of its content."""

    file: str
    bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class HubRepository:
    """A data set repository at a commit, never at a branch."""

    id: str
    commit: str

    @property
    def pin(self) -> str:
        """For provenance: ``hub codeparrot/apps@21e74ddf8de1``."""
        return f"hub {self.id}@{self.commit[:12]}"


def fetch(repository: HubRepository, wanted: HubFile, target: Path, *, endpoint: str, progress: Progress) -> None:
    """Put the file at ``target`` (its folder exists), unless it is there.

    Another process that fetches the same file is waited for. An interruption leaves a part that the next call goes on
    with, never a half file at ``target``. Raises HubFailed.
    """
    from filelock import FileLock  # noqa: PLC0415  (only a download needs a lock)

    with FileLock(target.with_name(f".{target.name}.lock")):
        if target.is_file():
            return
        part = target.with_name(f".{target.name}.{repository.commit[:12]}.part")
        url = f"{endpoint.rstrip('/')}/datasets/{repository.id}/resolve/{repository.commit}/{wanted.file}"
        progress.note(f"fetching {url}")
        try:
            with PartialFile(part) as partial:
                _receive(url, partial, progress)
                _check(wanted, partial)
                partial.sync()
            part.replace(target)
            sync_folder(target.parent)
        except OSError as error:
            reason = "the disk is full" if is_full(error) else error.strerror
            raise HubFailed(f"cannot write to {target.parent}: {reason}") from None


def _check(wanted: HubFile, partial: PartialFile) -> None:
    size, sha256 = partial.size, partial.sha256()
    if wanted.bytes not in (None, size):
        partial.cut(0)
        raise HubFailed(f"{wanted.file} has {size} bytes instead of {wanted.bytes}")
    if wanted.sha256 not in (None, sha256):
        partial.cut(0)
        raise HubFailed(f"{wanted.file} has another sha256 than the pinned one")


def _receive(url: str, partial: PartialFile, progress: Progress) -> None:
    import httpx  # noqa: PLC0415  (slow to import, needed only here)

    barren, best, reason = 0, partial.size, ""
    while barren < ATTEMPTS:
        try:
            with _answer(url, partial.size) as response:
                if _append(response, partial, progress):
                    return
            reason = f"the connection ended early, at {format_bytes(partial.size)}"
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise HubFailed(f"cannot connect to {httpx.URL(url).host} ({_one_line(error)})") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = _one_line(error)
        barren = 0 if partial.size > best else barren + 1
        best = max(best, partial.size)
    raise HubFailed(f"{reason} ({url})")


@contextmanager
def _answer(url: str, start: int) -> Iterator[httpx.Response]:
    import httpx  # noqa: PLC0415

    headers = {"User-Agent": f"peft-daemon/{peft_core.__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    try:
        client = httpx.Client(timeout=timeout, follow_redirects=True, headers=headers)
    except (ValueError, OSError, ImportError) as error:  # a proxy or certificate setting that cannot be used
        raise HubFailed(f"cannot set up the connection ({error})") from None
    with client, client.stream("GET", url) as response:
        yield response


def _append(response: httpx.Response, partial: PartialFile, progress: Progress) -> bool:
    """Add the answer's bytes; whether the file is complete now."""
    start, total = partial.size, None
    if response.status_code == 206:
        match = _RANGE.match(response.headers.get("content-range", ""))
        if match is None or int(match[1]) != start:
            partial.cut(0)
            return False
        total = int(match[2])
    elif response.status_code == 200:
        partial.cut(0)
        length = response.headers.get("content-length", "")
        total = int(length) if length.isdigit() else None
    elif response.status_code == 416:  # the part is not a beginning of what is served
        partial.cut(0)
        return False
    else:
        raise HubFailed(f"HTTP {response.status_code} for {response.url}")
    # Without a chunk size: httpx would hold back what does not fill one, and lose it when the connection breaks.
    for data in response.iter_raw():
        partial.append(data)
        progress.advance(partial.size, total or partial.size)
    return total is None or partial.size == total


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
