"""The data sets that have a name, and loading of one of them or of the user's own file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from peft_core.errors import InvalidInput, NotFound
from peft_tuning.data.datasets import apps, codealpacapy, conala, folders, hub, jsonl
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
    raise NotFound(
        f"there is no data set '{name}'",
        why=f"there are {known}",
        fix="Or give the path of a FILE.jsonl or folder, or OWNER/NAME of the hub",
    )


def is_own(name: str) -> bool:
    """Whether ``name`` is the user's own file or folder, or a data set of the hub without an entry here."""
    return is_file(name) or (
        all(name != entry.id for entry in ENTRIES)
        and (_folder(name) is not None or hub.parse_address(name) is not None)
    )


def is_file(name: str) -> bool:
    """Whether ``name`` is a file and not a data set of the catalogue."""
    return name.lower().endswith(jsonl.ENDINGS)


def label(name: str) -> str:
    """Return the word for a data set in the names of adapters and evaluations."""
    if not is_own(name) or is_file(name):
        return Path(name).stem
    if (found := _folder(name)) is not None:
        return "-".join(filter(None, (found[0].resolve().name, found[1])))
    address = hub.parse_address(name)
    return "-".join(filter(None, (address.id.partition("/")[2], address.config))) if address else name


def _folder(name: str) -> tuple[Path, str | None] | None:
    """Return the folder, and the configuration in it, that ``name`` means; None if there is no such folder."""
    path, _, config = name.rpartition(":")
    for folder, chosen in ((name, None), (path, config)):
        if folder and Path(folder).expanduser().is_dir():
            return Path(folder).expanduser(), chosen
    return None


def load(name: str, locations: DataLocations, *, seed: int = SEED) -> DataSet:
    """Load the data set ``name``, the file or folder at that path, or one of the hub.

    Raises NotFound or DownloadFailed if it is not available, InvalidInput if it cannot be used.
    """
    if not is_own(name):
        entry = get(name)
        if locations.columns:
            raise InvalidInput(f"the columns of {name} are known", fix="Leave --column out")
        return entry.load(locations, seed)
    if locations.data is not None:
        raise InvalidInput(f"{name} is no data set of the catalogue", fix="Leave --data out")
    if is_file(name):
        return jsonl.load(Path(name).expanduser(), seed, locations.columns)
    if (found := _folder(name)) is not None:
        return jsonl.data_set(folders.read_folder(found[0], config=found[1]), seed, locations.columns)
    address = hub.parse_address(name)
    assert address is not None  # noqa: S101  (is_own looked)
    return jsonl.data_set(hub.load_rows(address, locations), seed, locations.columns)
