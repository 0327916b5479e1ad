"""What the catalogue knows of a data set before it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from peft_tuning.datasets.sources import Places, Wanted
from peft_tuning.examples import DataSet

SEED = 42
"""The study's."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A data set of the catalogue. A new one is a module with an ``ENTRY`` and one line in ``catalogue``."""

    id: str
    summary: str
    licence: str
    sizes: Mapping[str, int]
    """Examples per part, as the study had them."""
    wanted: tuple[Wanted, ...]
    """Its files; several for a data set made of others."""
    load: Callable[[Places, int], DataSet]
    """Reads it, given where to look and a seed. Raises InvalidInput for what cannot be used, NotFound or DownloadFailed
    where a file is missing."""
