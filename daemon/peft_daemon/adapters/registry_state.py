"""The registry's two state files: the digests that a name has pointed at, and the adapter in use for each task.

    names.json          name -> digests, newest last
    active.json         task -> name, everywhere and by repository, and there how much code of other files is shown

Their contents are immutable values. The lock that every change needs is the registry's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from peft_core import files
from peft_core.api_types import BASE, Task
from peft_core.code.work_trees import list_time, main_folder, other_folders, work_tree_list
from peft_core.errors import FREE_SPACE, Conflict, NoSpace, PeftDaemonError, Unavailable, UnusablePath, is_full
from peft_daemon.adapters.manifest import Manifest

FileSignature = tuple[int, int, int] | None
"""Time in nanoseconds, size and inode of a file; None where there is none."""


class NameVersion(msgspec.Struct, frozen=True):
    """A digest a name has pointed at, and since when (ISO 8601, UTC)."""

    digest: str
    since: str


class AdapterNames(msgspec.Struct, frozen=True):
    """``names.json``: every name's history, newest last; the last is what the name means."""

    names: dict[str, Annotated[tuple[NameVersion, ...], Meta(min_length=1)]] = {}
    removed: tuple[str, ...] = ()
    """Digests on the disk that count for nothing: the system refused to delete an open file, an import stores them just
    now, or it was killed before a name had them."""

    def pointing_at(self, digest: str) -> list[str]:
        """Return the names that point at ``digest`` now, sorted."""
        return sorted(name for name, history in self.names.items() if history[-1].digest == digest)

    def mentioned(self) -> set[str]:
        """Return all digests in any history, which a rollback can still reach."""
        return {version.digest for history in self.names.values() for version in history}

    def with_version(self, name: str, version: NameVersion) -> AdapterNames:
        """Return the names with ``name`` pointing at ``version``."""
        history = self.names.get(name, ())
        if not history or history[-1].digest != version.digest:
            history = (*history, version)
        kept = tuple(digest for digest in self.removed if digest != version.digest)
        return AdapterNames({**self.names, name: history}, kept)

    def rolled_back(self, name: str) -> AdapterNames:
        """Return the names with ``name`` pointing at its previous digest."""
        return AdapterNames({**self.names, name: self.names[name][:-1]}, self.removed)

    def without_name(self, name: str) -> AdapterNames:
        """Return the names without ``name``."""
        return AdapterNames({key: history for key, history in self.names.items() if key != name}, self.removed)

    def without_digest(self, digest: str) -> AdapterNames:
        """Return the names without ``digest`` in any history; a name with no other version is dropped."""
        kept = {
            name: tuple(version for version in history if version.digest != digest)
            for name, history in self.names.items()
        }
        return AdapterNames({name: history for name, history in kept.items() if history}, self.removed)

    def with_removed(self, digests: Iterable[str]) -> AdapterNames:
        """Return the names with ``digests`` marked as removed."""
        return AdapterNames(self.names, tuple(dict.fromkeys((*self.removed, *sorted(digests)))))


class RepositoryAdapters(msgspec.Struct, frozen=True):
    """The adapters of one folder and everything below it, in all work trees of its repository."""

    path: str
    """The path as the user gave it, made absolute."""
    real: str
    """The path with links followed; editors may report either."""
    tasks: dict[Task, str]
    """Name or digest by task; ``base``: no adapter, even if one is set outside."""
    context: int = 0
    """Most tokens of other files' code in a prompt, as the gate of tuning found with what fills in here."""

    def or_else(self, other: RepositoryAdapters) -> RepositoryAdapters:
        """Return these settings, and those of ``other`` where there are none."""
        own = self.context or Task.FILL in self.tasks
        context = self.context if own else other.context
        return RepositoryAdapters(self.path, self.real, {**other.tasks, **self.tasks}, context)


class ActiveAdapters(msgspec.Struct, frozen=True):
    """``active.json``: the adapter in use for each task, everywhere and by repository."""

    everywhere: dict[Task, str] = {}
    repositories: tuple[RepositoryAdapters, ...] = ()

    def uses(self) -> Iterator[tuple[str, str]]:
        """Yield (name or digest, where it is in use), e.g. ``("mine", "fill@/home/me/project")``."""
        for task, reference in self.everywhere.items():
            yield reference, task.value
        for repository in self.repositories:
            for task, reference in repository.tasks.items():
                yield reference, f"{task.value}@{repository.path}"

    def with_use(self, reference: str | None, tasks: tuple[Task, ...], repository: Path | None) -> ActiveAdapters:
        """Return the settings with ``reference`` (None: no setting) for ``tasks``, everywhere or in one folder."""
        if repository is None:
            # Nothing lies around "everywhere": there, the base and no setting are the same.
            wanted = None if reference == BASE else reference
            return ActiveAdapters(_changed(self.everywhere, wanted, tasks), self.repositories)
        before = self._of_folder(repository)
        # What the gate found, it found with the adapter that filled in then.
        context = 0 if Task.FILL in tasks else before.context
        return self._with_folder(
            RepositoryAdapters(before.path, before.real, _changed(before.tasks, reference, tasks), context)
        )

    def with_context(self, tokens: int, repository: Path) -> ActiveAdapters:
        """Return the settings with at most ``tokens`` tokens of other files' code in the prompts of one folder."""
        before = self._of_folder(repository)
        return self._with_folder(RepositoryAdapters(before.path, before.real, before.tasks, tokens))

    def without_context_of(self, name: str) -> ActiveAdapters:
        """Return the settings without code of other files where ``name`` fills in."""
        return ActiveAdapters(
            self.everywhere,
            tuple(
                RepositoryAdapters(r.path, r.real, r.tasks, 0 if r.tasks.get(Task.FILL) == name else r.context)
                for r in self.repositories
            ),
        )

    def _of_folder(self, folder: Path) -> RepositoryAdapters:
        """Return the settings of a folder, under the name that it has in the first work tree of its repository."""
        path, real = os.path.abspath(folder), os.path.realpath(folder)  # noqa: PTH100  (no links followed)
        if (main := str(main_folder(Path(real)))) != real:
            path = real = main
        found = RepositoryAdapters(path, real, {})
        # Where it was chosen in several work trees, by an earlier version, what was chosen in the first one counts.
        for each in sorted(self.repositories, key=lambda each: each.real != real):
            found = found.or_else(each) if _real_main(each) == real else found
        return found

    def _with_folder(self, folder: RepositoryAdapters) -> ActiveAdapters:
        others = tuple(each for each in self.repositories if _real_main(each) != folder.real)
        return ActiveAdapters(self.everywhere, (*others, folder) if folder.tasks or folder.context else others)

    def set_at_import(self, name: str, task: Task, names: AdapterNames) -> bool:
        """Whether ``name`` serves ``task`` everywhere, and because of its import, not a user's choice.

        Names and settings are kept in the order in which they were made. A user chose it if its setting comes after
        the setting of a name that was imported later, or if the name serves other tasks too.
        """
        if name not in names.names or self.everywhere.get(task) != name or [*self.everywhere.values()].count(name) > 1:
            return False
        imported = [*names.names]
        later = imported[imported.index(name) + 1 :]
        before = takewhile(lambda other: other is not task, self.everywhere)
        return not any(self.everywhere[other] in later for other in before)

    def without(self, references: set[str]) -> ActiveAdapters:
        """Return the settings without any use of these names or digests."""
        repositories = tuple(
            RepositoryAdapters(
                r.path,
                r.real,
                {task: reference for task, reference in r.tasks.items() if reference not in references},
                0 if r.tasks.get(Task.FILL) in references else r.context,
            )
            for r in self.repositories
        )
        everywhere = {task: ref for task, ref in self.everywhere.items() if ref not in references}
        return ActiveAdapters(everywhere, tuple(r for r in repositories if r.tasks or r.context))

    def by_folder(self) -> dict[str, RepositoryAdapters]:
        """Return the settings by folder, spelled as by ``enclosing_folders``.

        They stand under both paths of a folder, and under what it is called in other work trees of its repository.
        """
        own = {
            os.path.normcase(spelling): repository
            for repository in self.repositories
            for spelling in (repository.real, repository.path)
        }
        others: dict[str, RepositoryAdapters] = {}
        for repository in self.repositories:
            for folder in other_folders(Path(repository.real)):
                key = os.path.normcase(folder)
                others[key] = others[key].or_else(repository) if key in others else repository
        return others | {key: each.or_else(others[key]) if key in others else each for key, each in own.items()}

    def work_tree_lists(self) -> tuple[str, ...]:
        """Return the folders in which the repositories of the settings list their further work trees."""
        return tuple(sorted({work_tree_list(Path(each.real)) for each in self.repositories} - {""}))


def _real_main(repository: RepositoryAdapters) -> str:
    return str(main_folder(Path(repository.real)))


def enclosing_folders(path: str) -> Iterator[str]:
    """Yield ``path`` and every folder above it, nearest first, without looking at the disk.

    The path comes from a client, and following its links could make the daemon access a remote share.
    """
    if not os.path.isabs(path):  # noqa: PTH117  (pathlib is ten times slower, and this runs per request)
        return
    current = os.path.normcase(os.path.normpath(path))
    while True:
        yield current
        parent = os.path.dirname(current)  # noqa: PTH120
        if parent == current:
            return
        current = parent


def _changed(before: dict[Task, str], reference: str | None, tasks: tuple[Task, ...]) -> dict[Task, str]:
    kept = {task: ref for task, ref in before.items() if task not in tasks}
    return kept if reference is None else {**kept, **dict.fromkeys(tasks, reference)}


@dataclass(frozen=True)
class RegistryState:
    """Contents of the two files when they had these signatures, and the work trees there were then."""

    signatures: tuple[FileSignature, FileSignature]
    names: AdapterNames
    active: ActiveAdapters
    folders: dict[str, RepositoryAdapters]
    work_trees: Mapping[str, int] = field(default_factory=dict)
    """When each list of further work trees changed last."""
    manifests: dict[str, Manifest] = field(default_factory=dict)
    """Manifests read so far, by digest; dropped with the state, so that a removed adapter is forgotten."""


StateT = TypeVar("StateT", AdapterNames, ActiveAdapters)


class RegistryFiles:
    """Read and write the two state files below ``folder``; a writer holds the registry's lock."""

    def __init__(self, folder: Path) -> None:
        self._names_file = folder / "names.json"
        self._active_file = folder / "active.json"
        self._cached: RegistryState | None = None

    def state(self) -> RegistryState:
        """Return the present state; files are read again only when their signatures changed.

        Raises Conflict for a file that cannot be read.
        """
        signatures = (_read_signature(self._names_file), _read_signature(self._active_file))
        cached = self._cached
        if cached is None or cached.signatures != signatures or _listed(cached.work_trees) != cached.work_trees:
            # The signatures are older than what is read now: a change in between is read again by the next call.
            names, active = self.read_names(), self.read_active()
            work_trees = _listed(active.work_tree_lists())
            self._cached = cached = RegistryState(signatures, names, active, active.by_folder(), work_trees)
        return cached

    def read_names(self) -> AdapterNames:
        """Read ``names.json``; raises Conflict for a damaged file."""
        return _read(self._names_file, AdapterNames)

    def read_active(self) -> ActiveAdapters:
        """Read ``active.json``; raises Conflict for a damaged file."""
        return _read(self._active_file, ActiveAdapters)

    def write_names(self, names: AdapterNames) -> None:
        """Replace ``names.json``; raises OSError."""
        files.write_durable(self._names_file, msgspec.json.format(msgspec.json.encode(names), indent=2))

    def write_active(self, active: ActiveAdapters) -> None:
        """Replace ``active.json``; raises OSError."""
        files.write_durable(self._active_file, msgspec.json.format(msgspec.json.encode(active), indent=2))


def _read(path: Path, kind: type[StateT]) -> StateT:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, NotADirectoryError):
        return kind()
    except (OSError, ValueError, RecursionError) as error:
        raise Conflict(f"cannot read {path}", why=str(error), fix="Correct it, or move it away") from None


def unwritable(folder: Path, error: OSError) -> PeftDaemonError:
    """Return the error for a registry that cannot be changed."""
    if is_full(error):
        return NoSpace(f"the disk is full: the adapters in {folder} were not changed", fix=FREE_SPACE)
    return Unavailable(
        f"cannot change the adapters in {folder}",
        why=error.strerror or str(error),
        fix="Check its disk and permissions",
    )


def _listed(lists: Iterable[str]) -> dict[str, int]:
    return {each: list_time(each) for each in lists}


def _read_signature(path: Path) -> FileSignature:
    try:
        info = os.stat(path)  # noqa: PTH116  (once per request: a third of the time of Path.stat)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UnusablePath(error, path) from None
    return info.st_mtime_ns, info.st_size, info.st_ino
