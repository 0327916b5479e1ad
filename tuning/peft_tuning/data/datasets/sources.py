"""Where a data set's files are: ``--data``, then ``PEFT_DAEMON_DATA``, then the cache, then the hub.

The first place that has what is needed is used; ``--data`` is never passed over in silence. Only the hub touches the
network, once: what it gives lies in the cache afterwards. What the files mean is not known here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from peft_core.errors import DownloadFailed, NotFound
from peft_core.files import file_sha256, private_folder
from peft_core.http_download import DEFAULT_HUB, DownloadProgress, NoProgress, TransferFailed, hub_endpoint
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_tuning.data.datasets.hub import HubFile, HubRepository, fetch
from peft_tuning.data.examples import DataSet

DATA_FOLDER = "PEFT_DAEMON_DATA"
"""Environment variable: a folder with one sub-folder per data set."""


@dataclass(frozen=True, kw_only=True)
class DataSetFile:
    """One of a data set's files, by the names it is known under."""

    names: tuple[str, ...]
    """Names that are accepted, best first; some data sets also come as a folder of that name."""
    fields: tuple[str, ...]
    """What each row must have, for the message that asks for the file."""
    hub: HubFile | None = None
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class DataSetFiles:
    """All files of a data set and where else they can come from."""

    id: str
    parts: Mapping[str, DataSetFile]
    repository: HubRepository | None = None
    folders: tuple[str, ...] = ()
    """Further names of its folder, besides ``id``."""
    unnamed: str | None = None
    """The part that a path given with ``--data`` is when its name says nothing."""
    marker: str = ""
    """A folder is data itself when its sub-folders hold a file of this name."""


@dataclass(frozen=True)
class LocatedFiles:
    """The files, and the place that had them."""

    files: Mapping[str, Path]
    """By part; at least one, and all that are required."""
    place: str

    def describe(self) -> str:
        """For provenance: the place, each file's name and the start of its sha256."""
        return f"{self.place}: " + ", ".join(f"{path.name} {_digest(path)}" for path in self.files.values())


@dataclass(frozen=True, kw_only=True)
class DataLocations:
    """Where to look."""

    cache: Path
    data: Path | None = None
    environment: Path | None = None
    offline: bool = False
    endpoint: str = DEFAULT_HUB
    progress: DownloadProgress = field(default_factory=NoProgress)

    @classmethod
    def resolve(
        cls,
        settings: Settings,
        paths: Paths,
        *,
        data: Path | None = None,
        environ: Mapping[str, str] | None = None,
        progress: DownloadProgress | None = None,
    ) -> DataLocations:
        """The places for this user; ``HF_ENDPOINT`` moves the hub, ``HF_HUB_OFFLINE`` closes it."""
        env = os.environ if environ is None else environ
        closed = env.get("HF_HUB_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on")
        folder = env.get(DATA_FOLDER)
        return cls(
            cache=paths.cache / "datasets",
            data=data,
            environment=Path(folder).expanduser() if folder else None,
            offline=settings.offline or closed,
            endpoint=hub_endpoint(env),
            progress=progress or NoProgress(),
        )


def find(wanted: DataSetFiles, places: DataLocations) -> LocatedFiles:
    """The first place that has the data set; fetched from the hub when no other has.

    Raises NotFound or DownloadFailed that say which file to put where.
    """
    if found := locate(wanted, places):
        return found
    cache = places.cache / wanted.id
    if wanted.repository is None or places.offline:
        why = "offline, and " if places.offline else ""
        raise NotFound(
            f"the data set {wanted.id} is not here", why=why + _looked(wanted, places), fix=_ask(wanted, cache)
        )
    try:
        private_folder(places.cache)
        private_folder(cache)
        for part in wanted.parts.values():
            if part.hub:
                target = cache / part.hub.file
                fetch(wanted.repository, part.hub, target, endpoint=places.endpoint, progress=places.progress)
    except (TransferFailed, OSError) as error:
        raise DownloadFailed(
            f"the data set {wanted.id} could not be fetched", why=str(error), fix=_ask(wanted, cache)
        ) from None
    files = _files(wanted, cache)
    return LocatedFiles(files, wanted.repository.pin)


def locate(wanted: DataSetFiles, places: DataLocations) -> LocatedFiles | None:
    """As ``find`` without the network; None where only the hub could help. NotFound if ``--data`` has it not."""
    names = (wanted.id, *wanted.folders)
    if places.data is not None:
        for path in (places.data, *(places.data / name for name in names)):
            if files := _files(wanted, path):
                return LocatedFiles(files, "--data")
        problem = "has not the files of" if places.data.exists() else "does not exist; it should hold"
        raise NotFound(
            f"{places.data} {problem} the data set {wanted.id}",
            fix=f"Give a path to {_list(wanted)}",
        )
    if places.environment is not None:
        for name in names:
            if files := _files(wanted, places.environment / name):
                return LocatedFiles(files, DATA_FOLDER)
    files = _files(wanted, places.cache / wanted.id)
    # An interrupted fetch may have left one file of two: with a network it is gone on with.
    whole = all(id_ in files for id_, part in wanted.parts.items() if part.hub)
    return LocatedFiles(files, "cache") if files and (whole or places.offline) else None


def _files(wanted: DataSetFiles, path: Path) -> dict[str, Path]:
    """The parts at ``path``, a file or a folder; empty unless all that are required are there."""
    found: dict[str, Path] = {}
    if path.is_file():
        named = (id_ for id_, part in wanted.parts.items() if path.name in part.names)
        if part_id := next(named, wanted.unnamed):
            found[part_id] = path
    elif path.is_dir():
        for id_, part in wanted.parts.items():
            candidates = (path / name for name in part.names)
            if file := next((c for c in candidates if c.is_file() or (wanted.marker and c.is_dir())), None):
                found[id_] = file
        if not found and wanted.unnamed and wanted.marker and any(path.glob(f"*/{wanted.marker}")):
            found[wanted.unnamed] = path
    complete = all(id_ in found for id_, part in wanted.parts.items() if part.required)
    return found if complete else {}


def _looked(wanted: DataSetFiles, places: DataLocations) -> str:
    environment = places.environment / wanted.id if places.environment else f"{DATA_FOLDER} (not set)"
    return f"neither {environment} nor {places.cache / wanted.id} has it"


def _ask(wanted: DataSetFiles, cache: Path) -> str:
    origin = ""
    if wanted.repository:
        origin = f" (from huggingface.co/datasets/{wanted.repository.id} at {wanted.repository.commit})"
    return f"Put {_list(wanted)}{origin} into {cache}, or name their folder with --data"


def _list(wanted: DataSetFiles) -> str:
    parts = []
    for part in wanted.parts.values():
        name = part.hub.file if part.hub else part.names[0]
        parts.append(f"{name} (rows with {', '.join(part.fields)}{'' if part.required else '; optional'})")
    return " and ".join(parts)


def _digest(path: Path) -> str:
    """Start of the file's sha256; of all files below a folder, with their names."""
    if path.is_file():
        return file_sha256(path)[:16]
    sha = hashlib.sha256()
    for file_ in sorted(p for p in path.rglob("*") if p.is_file()):
        sha.update(f"{file_.relative_to(path).as_posix()}\0".encode())
        sha.update(hashlib.sha256(file_.read_bytes()).digest())
    return sha.hexdigest()[:16]


# What the catalogue knows of a data set before it is read.

SEED = 42
"""The study's."""


@dataclass(frozen=True, kw_only=True)
class DataSetEntry:
    """A data set of the catalogue. A new one is a module with an ``ENTRY`` and one line in ``catalogue``."""

    id: str
    summary: str
    licence: str
    sizes: Mapping[str, int]
    """Examples per part, as the study had them."""
    wanted: tuple[DataSetFiles, ...]
    """Its files; several for a data set made of others."""
    load: Callable[[DataLocations, int], DataSet]
    """Reads it, given where to look and a seed. Raises InvalidInput for what cannot be used, NotFound or DownloadFailed
    where a file is missing."""
