"""Which data sets there are by name; any other name is a file of the user's."""

from __future__ import annotations

from pathlib import Path

from peft_core.errors import InvalidInput, NotFound
from peft_tuning.datasets import apps, codealpacapy, conala, joint, jsonl
from peft_tuning.datasets.entry import SEED, Entry
from peft_tuning.datasets.sources import Places
from peft_tuning.examples import DataSet

ENTRIES: tuple[Entry, ...] = (
    conala.ENTRY,
    codealpacapy.ENTRY,
    apps.ENTRY,
    joint.ENTRY,
)
"""All data sets with a name. A new one is a module with an ``ENTRY``, and a line here."""


def get(name: str) -> Entry:
    """The data set of that name. NotFound lists the names."""
    for entry in ENTRIES:
        if entry.id == name:
            return entry
    known = ", ".join(entry.id for entry in ENTRIES)
    raise NotFound(f"there is no data set '{name}'", why=f"there are {known}", fix="Or give the path of a FILE.jsonl")


def is_file(name: str) -> bool:
    """Whether ``name`` means a file and not a data set of the catalogue."""
    return name.endswith(jsonl.ENDINGS)


def load(name: str, places: Places, *, seed: int = SEED) -> DataSet:
    """The data set called ``name``, or the file of that path.

    Raises NotFound or DownloadFailed when it is not to be had, InvalidInput when it cannot be used.
    """
    if not is_file(name):
        return get(name).load(places, seed)
    if places.data is not None:
        raise InvalidInput(f"{name} is a file already", fix="Leave --data out")
    return jsonl.load(Path(name).expanduser(), seed)
