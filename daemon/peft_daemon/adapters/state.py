"""The registry's two state files: which digests a name has pointed at, and which adapter serves which task where.

Immutable values with the rules of choosing; reading, locking and writing are the registry's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from peft_core.api_types import BASE, Task


class Version(msgspec.Struct, frozen=True):
    """A digest a name has pointed at, and since when (ISO 8601, UTC)."""

    digest: str
    since: str


class Names(msgspec.Struct, frozen=True):
    """``names.json``: every name's history, newest last; the last is what the name means."""

    names: dict[str, Annotated[tuple[Version, ...], Meta(min_length=1)]] = {}
    removed: tuple[str, ...] = ()
    """Digests that are gone for users but still on the disk, where the system would not delete an open file."""

    def pointing_at(self, digest: str) -> list[str]:
        """The names that mean ``digest`` now, sorted."""
        return sorted(name for name, history in self.names.items() if history[-1].digest == digest)

    def mentioned(self) -> set[str]:
        """All digests in any history: what can still be rolled back to."""
        return {version.digest for history in self.names.values() for version in history}

    def with_version(self, name: str, version: Version) -> Names:
        """``name`` now points at ``version``."""
        history = self.names.get(name, ())
        if not history or history[-1].digest != version.digest:
            history = (*history, version)
        kept = tuple(digest for digest in self.removed if digest != version.digest)
        return Names({**self.names, name: history}, kept)

    def rolled_back(self, name: str) -> Names:
        """``name`` points at its previous digest again."""
        return Names({**self.names, name: self.names[name][:-1]}, self.removed)

    def without_name(self, name: str) -> Names:
        """``name`` is gone."""
        return Names({key: history for key, history in self.names.items() if key != name}, self.removed)

    def without_digest(self, digest: str) -> Names:
        """No history holds ``digest``; a name with no other version is gone."""
        kept = {
            name: tuple(version for version in history if version.digest != digest)
            for name, history in self.names.items()
        }
        return Names({name: history for name, history in kept.items() if history}, self.removed)

    def with_removed(self, digests: Iterable[str]) -> Names:
        """``digests`` are gone for users."""
        return Names(self.names, (*self.removed, *sorted(digests)))


class Repository(msgspec.Struct, frozen=True):
    """The adapters of one folder and everything below it."""

    path: str
    """As the user gave it, absolute."""
    real: str
    """With links followed: editors may report either."""
    tasks: dict[Task, str]
    """Name or digest; ``base``: none, whatever applies outside."""


class Active(msgspec.Struct, frozen=True):
    """``active.json``: the adapter in use for each task, everywhere and by repository."""

    everywhere: dict[Task, str] = {}
    repositories: tuple[Repository, ...] = ()

    def uses(self) -> Iterator[tuple[str, str]]:
        """(name or digest, where it is in use), e.g. ``("mine", "fill@/home/me/project")``."""
        for task, reference in self.everywhere.items():
            yield reference, task.value
        for repository in self.repositories:
            for task, reference in repository.tasks.items():
                yield reference, f"{task.value}@{repository.path}"

    def with_use(self, reference: str | None, tasks: tuple[Task, ...], repository: Path | None) -> Active:
        """Set the adapter of ``tasks``, everywhere or in one repository; None takes the setting away."""
        if repository is None:
            # Nothing lies around "everywhere": there, the base and no setting are the same.
            wanted = None if reference == BASE else reference
            return Active(_changed(self.everywhere, wanted, tasks), self.repositories)
        path, real = os.path.abspath(repository), os.path.realpath(repository)  # noqa: PTH100  (no links followed)
        before = next((r.tasks for r in self.repositories if r.real == real), {})
        changed = _changed(before, reference, tasks)
        others = tuple(r for r in self.repositories if r.real != real)
        return Active(self.everywhere, (*others, Repository(path, real, changed)) if changed else others)

    def set_at_import(self, name: str, task: Task, names: Names) -> bool:
        """Whether ``name`` serves ``task`` everywhere and nothing shows that somebody set this after its import.

        Names and settings are kept in the order in which they were made. So the setting is a later one where it
        follows that of a name which was imported later, and somebody's choice where the name serves other tasks too.
        """
        if self.everywhere.get(task) != name or [*self.everywhere.values()].count(name) > 1:
            return False
        imported = [*names.names]
        later = imported[imported.index(name) + 1 :]
        before = takewhile(lambda other: other is not task, self.everywhere)
        return not any(self.everywhere[other] in later for other in before)

    def without(self, references: set[str]) -> Active:
        """No task uses any of these names or digests."""
        repositories = tuple(
            Repository(r.path, r.real, {t: ref for t, ref in r.tasks.items() if ref not in references})
            for r in self.repositories
        )
        everywhere = {task: ref for task, ref in self.everywhere.items() if ref not in references}
        return Active(everywhere, tuple(r for r in repositories if r.tasks))

    def by_folder(self) -> dict[str, dict[Task, str]]:
        """Settings by folder, under both of its spellings, as ``enclosing`` spells folders."""
        return {
            os.path.normcase(spelling): repository.tasks
            for repository in self.repositories
            for spelling in (repository.real, repository.path)
        }


def enclosing(path: str) -> Iterator[str]:
    """``path`` and every folder above it, nearest first; spelling only, the disk is not looked at.

    A path comes from a client: following its links could make the daemon reach for a remote share.
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
