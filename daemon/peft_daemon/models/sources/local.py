"""A model file that is already on this machine, e.g. carried over on a disk: it is copied, never moved or linked."""

from __future__ import annotations

from pathlib import Path

from peft_core.files import file_sha256, format_bytes
from peft_core.http_download import CHUNK, PartialFile
from peft_core.progress import Progress
from peft_daemon.models.catalogue import ModelEntry
from peft_daemon.models.sources.base import SourceFailed


class LocalFile:
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
