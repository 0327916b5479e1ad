"""The interface of a source: append the rest of a model to a partial file, or say in one line why not."""

from __future__ import annotations

from typing import Protocol

from peft_core.http_download import PartialFile
from peft_core.progress import Progress


class SourceFailed(Exception):
    """This source cannot deliver; the text is one line for the user. The next source may."""


class Source(Protocol):
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
