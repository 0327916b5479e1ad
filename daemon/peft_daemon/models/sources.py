"""Sources of a model's bytes: the interface, a file on this machine, and a model hub.

A source appends the rest of a model to a partial file, or raises SourceFailed with a reason of one line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from peft_core.files import file_sha256, format_bytes
from peft_core.http_download import CHUNK_BYTES, DownloadProgress, PartialFile, TransferFailed, download
from peft_daemon.models.catalogue import HubLocation, ModelEntry


class SourceFailed(Exception):
    """This source cannot deliver; the text is one line for the user. The next source may."""


class ModelSource(Protocol):
    """Where a model's bytes can come from."""

    name: str
    """For people: ``huggingface.co``, ``package index``, a path."""
    scratch_bytes: int
    """Disk needed in the partial file's folder besides the model itself."""

    def fetch(self, partial: PartialFile, progress: DownloadProgress) -> None:
        """Append to ``partial`` until it holds the whole model.

        What ``partial`` holds already is kept as far as the source can build on it. Raises SourceFailed, or OSError
        when the disk takes no more; in both cases, as on an interruption, ``partial`` is still a prefix to resume from.
        """


class LocalFileSource:
    """Copy a model file that is already on this machine, e.g. on a disk; it is never moved or linked.

    Another file than the catalogue's is refused before a byte is written.
    """

    scratch_bytes = 0

    def __init__(self, entry: ModelEntry, path: Path) -> None:
        self.name = str(path)
        self._entry, self._path = entry, path

    def fetch(self, partial: PartialFile, progress: DownloadProgress) -> None:
        """Copy the file; see ``ModelSource.fetch``."""
        total = self._entry.bytes
        self._check()
        # What a download got so far is given up only now that the copy is known to be good.
        partial.cut(0)
        with self._path.open("rb", buffering=0) as source:
            while partial.size < total and (data := source.read(CHUNK_BYTES)):
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


class HubSource:
    """One file of a model hub repository; ``endpoint`` is the hub's scheme and host."""

    scratch_bytes = 0

    def __init__(self, entry: ModelEntry, location: HubLocation, *, endpoint: str) -> None:
        self.name = urlsplit(endpoint).hostname or "hub"
        self._entry = entry
        self._url = f"{endpoint}/{location.repository}/resolve/{location.revision}/{location.file}"

    def fetch(self, partial: PartialFile, progress: DownloadProgress) -> None:
        """Download the rest; see ``ModelSource.fetch``."""
        try:
            download(self._url, partial, progress, size=self._entry.bytes)
        except TransferFailed as failure:
            raise SourceFailed(str(failure)) from None
