"""The data sets that have a name, and loading of one of them or of the user's own file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from peft_core.errors import InvalidInput, NotFound
from peft_tuning.data.datasets import apps, codealpacapy, conala, jsonl
from peft_tuning.data.datasets.sources import SEED, DataLocations, DataSetEntry
from peft_tuning.data.examples import DataSet, drop_overlap

_JOINT_PARTS = (conala.ENTRY, codealpacapy.ENTRY)
_HELD_OUT_ELSEWHERE = "held out in the other data set"


def load_joint(locations: DataLocations, seed: int) -> DataSet:
    """Load Conala and CodeAlpacaPy one after the other, each with its own split, as in the study's joint training.

    A training row whose sentence is held out in the other data set is dropped, so that neither test set is trained on.
    With ``--data FOLDER`` both are looked for there, in sub-folders of their names too.
    """
    parts = first, second = [entry.load(locations, seed) for entry in _JOINT_PARTS]
    dropped: Counter[str] = Counter()
    for part in parts:
        dropped.update({f"{part.name}: {reason}": count for reason, count in part.dropped.items()})
    held_out = [example for part in parts for example in (*part.validation, *part.test)]
    train = drop_overlap((*first.train, *second.train), held_out, dropped, _HELD_OUT_ELSEWHERE)
    # The first has published parts, which must stay whole, so the rows of the second are dropped.
    validation = (*first.validation, *drop_overlap(second.validation, first.test, dropped, _HELD_OUT_ELSEWHERE))
    test = (*first.test, *drop_overlap(second.test, first.validation, dropped, _HELD_OUT_ELSEWHERE))
    return DataSet(
        name="joint",
        train=tuple(train),
        validation=validation,
        test=test,
        dropped=dict(dropped),
        licence=" and ".join(part.licence for part in parts),
        provenance=". ".join(part.provenance for part in parts),
        prompt_tokens=max(part.prompt_tokens for part in parts),
        response_tokens=max(part.response_tokens for part in parts),
    )


JOINT = DataSetEntry(
    id="joint",
    summary="conala and codealpacapy together",
    licence=" and ".join(entry.licence for entry in _JOINT_PARTS),
    sizes={part: sum(entry.sizes[part] for entry in _JOINT_PARTS) for part in ("train", "validation", "test")},
    files=tuple(files for entry in _JOINT_PARTS for files in entry.files),
    load=load_joint,
)


ENTRIES: tuple[DataSetEntry, ...] = (
    conala.ENTRY,
    codealpacapy.ENTRY,
    apps.ENTRY,
    JOINT,
)
"""All data sets with a name. A new one is a module with an ``ENTRY``, and a line here."""


def get(name: str) -> DataSetEntry:
    """Return the data set of that name; raises NotFound, which lists the names."""
    for entry in ENTRIES:
        if entry.id == name:
            return entry
    known = ", ".join(entry.id for entry in ENTRIES)
    raise NotFound(f"there is no data set '{name}'", why=f"there are {known}", fix="Or give the path of a FILE.jsonl")


def is_file(name: str) -> bool:
    """Whether ``name`` is a file and not a data set of the catalogue."""
    return name.lower().endswith(jsonl.ENDINGS)


def load(name: str, locations: DataLocations, *, seed: int = SEED) -> DataSet:
    """Load the data set ``name``, or the file at that path.

    Raises NotFound or DownloadFailed if it is not available, InvalidInput if it cannot be used.
    """
    if not is_file(name):
        return get(name).load(locations, seed)
    if locations.data is not None:
        raise InvalidInput(f"{name} is a file already", fix="Leave --data out")
    return jsonl.load(Path(name).expanduser(), seed)
