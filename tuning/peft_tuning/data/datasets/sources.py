"""Find the files of a data set: with ``--data``, below ``PEFT_DAEMON_DATA``, in the cache, or on the hub.

The first location that has the files is used; files that are missing below ``--data`` are an error. Only the hub needs
the network, once: its files stay in the cache. They are fetched at a pinned commit through the hub's plain route
``/datasets/{repository}/resolve/{commit}/{file}``, which mirrors serve too. The commit pins the content if the hub is
trusted; a known sha256 is checked as well.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from peft_core.errors import DownloadFailed, NotFound, is_full
from peft_core.files import file_sha256, private_folder, sync_folder
from peft_core.http_download import (
    DEFAULT_HUB,
    DownloadProgress,
    NoProgress,
    PartialFile,
    TransferFailed,
    download,
    hub_endpoint,
    is_hub_offline,
)
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_tuning.data.examples import DataSet

DATA_FOLDER = "PEFT_DAEMON_DATA"
"""Environment variable: a folder with one sub-folder per data set."""
SEED = 42
"""The seed of the study."""


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file in a repository, with size and hash if they are known."""

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
        """Repository and commit, for provenance: ``hub codeparrot/apps@21e74ddf8de1``."""
        return f"hub {self.id}@{self.commit[:12]}"


@dataclass(frozen=True, kw_only=True)
class DataSetFile:
    """One of a data set's files."""

    names: tuple[str, ...]
    """Names that are accepted, best first; some data sets also come as a folder of that name."""
    fields: tuple[str, ...]
    """Fields that each row must have; the error about a missing file names them."""
    hub: HubFile | None = None
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class DataSetFiles:
    """All files of a data set, and where they can be found."""

    id: str
    parts: Mapping[str, DataSetFile]
    repository: HubRepository | None = None
    folders: tuple[str, ...] = ()
    """Further names of its folder, besides ``id``."""
    unnamed: str | None = None
    """The part for which a path given with ``--data`` is taken if its name is not a known one."""
    marker: str = ""
    """A folder counts as a part if its sub-folders contain a file of this name."""


@dataclass(frozen=True)
class LocatedFiles:
    """The files of a data set, and the location that had them."""

    files: Mapping[str, Path]
    """The files by part: at least one, and all required ones."""
    location: str
    """For people: ``--data``, ``PEFT_DAEMON_DATA``, ``cache``, or the hub with its commit."""

    def describe(self) -> str:
        """Return, for provenance, the location, and each file's name with the start of its sha256."""
        return f"{self.location}: " + ", ".join(f"{path.name} {_digest(path)}" for path in self.files.values())


@dataclass(frozen=True, kw_only=True)
class DataLocations:
    """The locations that are searched for data sets, for one user."""

    cache: Path
    data: Path | None = None
    environment: Path | None = None
    offline: bool = False
    endpoint: str = DEFAULT_HUB
    progress: DownloadProgress = field(default_factory=NoProgress)
    fetch: bool = False
    """Whether a data set without an entry may be fetched from the hub."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Names of the columns of the user's own data, by what they are (``jsonl.FIELDS``)."""

    @classmethod
    def resolve(
        cls,
        settings: Settings,
        paths: Paths,
        *,
        data: Path | None = None,
        environ: Mapping[str, str] | None = None,
        progress: DownloadProgress | None = None,
        fetch: bool = False,
        columns: Mapping[str, str] | None = None,
    ) -> DataLocations:
        """Return the locations of this user.

        ``HF_ENDPOINT`` replaces the hub's URL; ``HF_HUB_OFFLINE`` turns fetching off.
        """
        env = os.environ if environ is None else environ
        folder = env.get(DATA_FOLDER)
        return cls(
            cache=paths.cache / "datasets",
            data=data,
            environment=Path(folder).expanduser() if folder else None,
            offline=settings.offline or is_hub_offline(env),
            endpoint=hub_endpoint(env),
            progress=progress or NoProgress(),
            fetch=fetch,
            columns=columns or {},
        )


@dataclass(frozen=True, kw_only=True)
class DataSetEntry:
    """A data set of the catalogue. A new one is a module with an ``ENTRY`` and one line in ``catalogue``."""

    id: str
    summary: str
    licence: str
    sizes: Mapping[str, int]
    """Examples per part in the study."""
    files: tuple[DataSetFiles, ...]
    """Its files; several for a data set made of others."""
    load: Callable[[DataLocations, int], DataSet]
    """Reads the data set, given the locations and a seed.

    Raises InvalidInput for unusable rows, NotFound or DownloadFailed if a file is missing.
    """


def find(data_set: DataSetFiles, locations: DataLocations) -> LocatedFiles:
    """Return the files of the first location that has the data set; if none has, they are fetched from the hub.

    Raises NotFound or DownloadFailed, which say which file to put where.
    """
    if found := locate(data_set, locations):
        return found
    cache = locations.cache / data_set.id
    if data_set.repository is None or locations.offline:
        why = "offline, and " if locations.offline else ""
        raise NotFound(
            f"the data set {data_set.id} is not here",
            why=why + _searched(data_set, locations),
            fix=_how_to_provide(data_set, cache),
        )
    try:
        private_folder(locations.cache)
        private_folder(cache)
        for part in data_set.parts.values():
            if part.hub:
                target = cache / part.hub.file
                fetch(data_set.repository, part.hub, target, endpoint=locations.endpoint, progress=locations.progress)
    except (TransferFailed, OSError) as error:
        raise DownloadFailed(
            f"the data set {data_set.id} could not be fetched",
            why=str(error),
            fix=_how_to_provide(data_set, cache),
        ) from None
    files = _files(data_set, cache)
    return LocatedFiles(files, data_set.repository.pin)


def locate(data_set: DataSetFiles, locations: DataLocations) -> LocatedFiles | None:
    """Return the files as ``find`` does, but without the network; None if no location has them.

    Raises NotFound if ``--data`` lacks the files.
    """
    names = (data_set.id, *data_set.folders)
    if locations.data is not None:
        for path in (locations.data, *(locations.data / name for name in names)):
            if files := _files(data_set, path):
                return LocatedFiles(files, "--data")
        problem = "does not contain the files of" if locations.data.exists() else "does not exist; it should contain"
        raise NotFound(
            f"{locations.data} {problem} the data set {data_set.id}",
            fix=f"Give a path to {_list(data_set)}",
        )
    if locations.environment is not None:
        for name in names:
            if files := _files(data_set, locations.environment / name):
                return LocatedFiles(files, DATA_FOLDER)
    files = _files(data_set, locations.cache / data_set.id)
    # An interrupted fetch may have left only some of the files; with a network the others are fetched.
    complete = all(id_ in files for id_, part in data_set.parts.items() if part.hub)
    return LocatedFiles(files, "cache") if files and (complete or locations.offline) else None


def _files(data_set: DataSetFiles, path: Path) -> dict[str, Path]:
    """Return the parts at ``path``, a file or a folder; empty unless all required ones are there."""
    found: dict[str, Path] = {}
    if path.is_file():
        named = (id_ for id_, part in data_set.parts.items() if path.name in part.names)
        if part_id := next(named, data_set.unnamed):
            found[part_id] = path
    elif path.is_dir():
        for id_, part in data_set.parts.items():
            candidates = (path / name for name in part.names)
            if file := next((c for c in candidates if c.is_file() or (data_set.marker and c.is_dir())), None):
                found[id_] = file
        if not found and data_set.unnamed and data_set.marker and any(path.glob(f"*/{data_set.marker}")):
            found[data_set.unnamed] = path
    complete = all(id_ in found for id_, part in data_set.parts.items() if part.required)
    return found if complete else {}


def _searched(data_set: DataSetFiles, locations: DataLocations) -> str:
    environment = locations.environment / data_set.id if locations.environment else f"{DATA_FOLDER} (not set)"
    return f"neither {environment} nor {locations.cache / data_set.id} has it"


def _how_to_provide(data_set: DataSetFiles, cache: Path) -> str:
    origin = ""
    if data_set.repository:
        origin = f" (from huggingface.co/datasets/{data_set.repository.id} at {data_set.repository.commit})"
    return f"Put {_list(data_set)}{origin} into {cache}, or name their folder with --data"


def _list(data_set: DataSetFiles) -> str:
    parts = []
    for part in data_set.parts.values():
        name = part.hub.file if part.hub else part.names[0]
        parts.append(f"{name} (rows with {', '.join(part.fields)}{'' if part.required else '; optional'})")
    return " and ".join(parts)


def _digest(path: Path) -> str:
    """Return the start of a file's sha256, or of that of all names and files below a folder."""
    if path.is_file():
        return file_sha256(path)[:16]
    sha = hashlib.sha256()
    for file_ in sorted(p for p in path.rglob("*") if p.is_file()):
        sha.update(f"{file_.relative_to(path).as_posix()}\0".encode())
        sha.update(hashlib.sha256(file_.read_bytes()).digest())
    return sha.hexdigest()[:16]


def fetch(repository: HubRepository, file: HubFile, target: Path, *, endpoint: str, progress: DownloadProgress) -> None:
    """Fetch the file to ``target`` (its folder exists), unless it is there.

    Waits for another process that fetches the same file. An interrupted fetch is continued by the next call; a file at
    ``target`` is always complete. Raises TransferFailed.
    """
    from filelock import FileLock  # noqa: PLC0415  (only a download needs a lock)

    with FileLock(target.with_name(f".{target.name}.lock")):
        if target.is_file():
            return
        part = target.with_name(f".{target.name}.{repository.commit[:12]}.part")
        url = f"{endpoint}/datasets/{repository.id}/resolve/{repository.commit}/{file.file}"
        progress.note(f"fetching {url}")
        try:
            with PartialFile(part) as partial:
                download(url, partial, progress)
                _check(file, partial)
                partial.sync()
            part.replace(target)
            sync_folder(target.parent)
        except OSError as error:
            reason = "the disk is full" if is_full(error) else error.strerror
            raise TransferFailed(f"cannot write to {target.parent}: {reason}") from None


def _check(file: HubFile, partial: PartialFile) -> None:
    size, sha256 = partial.size, partial.sha256()
    if file.bytes not in (None, size):
        partial.cut(0)
        raise TransferFailed(f"{file.file} has {size} bytes instead of {file.bytes}")
    if file.sha256 not in (None, sha256):
        partial.cut(0)
        raise TransferFailed(f"{file.file} has another sha256 than the pinned one")
