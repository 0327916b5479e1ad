"""Data sets of the hub that have no entry here: ``OWNER/NAME[:CONFIG][@REVISION]``.

Nothing is asked of the hub unless the user wants it (``--download``). Then its card and its data files are fetched at
the commit that the revision names now, into the cache; later uses read them there. They are read like a folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import msgspec

from peft_core.errors import DownloadFailed, InvalidInput, NotFound
from peft_core.files import private_folder, write_private
from peft_core.http_download import TransferFailed
from peft_core.hub import HubAnswer, ask_hub
from peft_tuning.data.datasets.folders import CARDS, UNKNOWN_LICENCE, printable, read_folder
from peft_tuning.data.datasets.jsonl import OwnRows
from peft_tuning.data.datasets.sources import DataLocations, HubFile, HubRepository, fetch

MAX_BYTES = 5_000_000_000
"""Of all files of a data set."""
MAX_FILES = 500
DATA = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".tsv", ".arrow")
"""Ends of the names of data files."""
CONVERTED = "refs/convert/parquet"
"""The hub's own copy of a data set, as parquet."""
_ADDRESS = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]+))?(?:@(?P<revision>[\w.-]+(?:/[\w.-]+)*))?")
_PIN = "pin.json"


@dataclass(frozen=True)
class HubAddress:
    """A data set of the hub, as the user named it."""

    id: str
    config: str | None
    revision: str


class _Pin(msgspec.Struct, frozen=True):
    """What was fetched for a revision, beside the folder of its files."""

    commit: str
    licence: str


def parse_address(name: str) -> HubAddress | None:
    """Return the address that a name is; None if it is none."""
    match = _ADDRESS.fullmatch(name)
    if match is None or ".." in name:
        return None
    return HubAddress(match["id"], match["config"], match["revision"] or "main")


def load_rows(address: HubAddress, locations: DataLocations) -> OwnRows:
    """Read a data set from the cache; fetch it before if the user wants that.

    Raises NotFound if it is not here, DownloadFailed, and InvalidInput if it has no data that can be read.
    """
    own = locations.cache / "hub" / f"{address.id.replace('/', '--')}@{address.revision.replace('/', '--')}"
    if locations.fetch and not locations.offline:
        _fetch_all(address, locations, own)
    try:
        pin = msgspec.json.decode((own / _PIN).read_bytes(), type=_Pin)
    except (OSError, ValueError, RecursionError):
        raise NotFound(
            f"the data set {address.id} is not here",
            why="you are offline" if locations.offline else "nothing is fetched from the hub by itself",
            fix="Type the same with `--download`"
            if not locations.offline
            else "Give a file or folder of it instead, or go online",
        ) from None
    rows = read_folder(
        own / pin.commit,
        name=address.id,
        config=address.config,
        origin=f"hub {address.id}@{pin.commit[:12]}" + (f", configuration {address.config}" if address.config else ""),
    )
    licence = printable(pin.licence) if pin.licence != UNKNOWN_LICENCE else rows.licence
    return replace(rows, licence=licence)


def _fetch_all(address: HubAddress, locations: DataLocations, own: Path) -> None:
    """Fetch the card and the data files of a revision, and note its commit when all are there."""
    try:
        answer = ask_hub("datasets", address.id, address.revision, locations.endpoint)
        files = _wanted(address, answer)
        locations.progress.note(f"{address.id}: {len(files)} files, licence {_licence(answer)}")
        repository = HubRepository(id=address.id, commit=answer.sha)
        for file in files:
            target = own / answer.sha / file.file
            for folder in reversed(target.relative_to(locations.cache).parents):
                private_folder(locations.cache / folder)
            fetch(repository, file, target, endpoint=locations.endpoint, progress=locations.progress)
        write_private(own / _PIN, msgspec.json.encode(_Pin(answer.sha, _licence(answer))))
    except (TransferFailed, OSError, msgspec.ValidationError) as error:
        raise DownloadFailed(
            f"the data set {address.id} could not be fetched",
            why=printable(str(error)),
            fix="Check the name. What needs a login there is fetched with the hub's own tools; give its folder then",
        ) from None


def _wanted(address: HubAddress, answer: HubAnswer) -> list[HubFile]:
    """Return the files to fetch; raises InvalidInput where there are none, too many, or names that lead elsewhere."""
    if not re.fullmatch(r"[0-9a-f]{40}", answer.sha):
        raise InvalidInput(f"the hub names no commit for {address.id}", fix="Try again later, or give a file of it")
    names = [each for each in answer.siblings if each.rfilename.lower().endswith(DATA) and _is_plain(each.rfilename)]
    if not names:
        raise InvalidInput(
            f"{address.id} has no files that can be read",
            why=f"none ends in {', '.join(DATA)}",
            fix=f"The hub may have a copy in parquet: `--dataset {address.id}@{CONVERTED}`",
        )
    size = sum(each.size or 0 for each in names)
    if size > MAX_BYTES or len(names) > MAX_FILES:
        raise InvalidInput(
            f"{address.id} has {len(names)} files with {size / 1e9:.1f} GB",
            why=f"at most {MAX_FILES} files and {MAX_BYTES / 1e9:.0f} GB are fetched",
            fix="Fetch a part of it with the hub's own tools, and give that file or folder",
        )
    cards = [each for each in answer.siblings if each.rfilename in CARDS]
    return [
        HubFile(file=each.rfilename, bytes=each.size, sha256=each.lfs.sha256 if each.lfs else None)
        for each in (*cards, *names)
    ]


def _is_plain(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts)
    return not path.is_absolute() and not hidden and "\\" not in name and ":" not in name and "\0" not in name


def _licence(answer: HubAnswer) -> str:
    return printable(" and ".join(answer.licences) or UNKNOWN_LICENCE)
