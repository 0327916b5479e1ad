"""The registry of adapters: what names point at, which adapter answers a request, and all changes to both.

Several processes may use one folder. A change holds a file lock and ends with one rename. So readers, which take no
lock, see the state before or after it, also when a process crashes. ``blobs`` keeps the files of adapters.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import msgspec

from peft_core import files
from peft_core.api_types import BASE, AdapterSummary, Task
from peft_core.errors import Conflict, InvalidInput, NotFound, Unavailable, UnusableFile
from peft_core.files import private_folder
from peft_core.settings import Settings
from peft_core.status_types import LLAMACPP, UPSTREAM
from peft_daemon.adapters.blobs import AdapterVerifier, BlobStore, utc_now
from peft_daemon.adapters.manifest import (
    DIGEST_PATTERN,
    SHORT_DIGEST_LENGTH,
    AdapterLease,
    Manifest,
    lost_summary,
    removed_adapter_error,
    require_usable_name,
    write_card,
)
from peft_daemon.adapters.peft_files import round_to_float16
from peft_daemon.adapters.registry_state import (
    ActiveAdapters,
    AdapterNames,
    NameVersion,
    RegistryFiles,
    RegistryState,
    RepositoryAdapters,
    enclosing_folders,
    unwritable,
)
from peft_daemon.adapters.validation import BaseModel

LOCK_TIMEOUT_S = 60.0
MIN_DIGEST_PREFIX = 4
"""Shortest accepted beginning of a digest."""

_HEX = frozenset("0123456789abcdef")


class AdapterRegistry:
    """The adapters in ``folder``, which is created by the first change. Safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state_files = RegistryFiles(folder)
        self._blobs = BlobStore(folder)
        self._verifier = AdapterVerifier(self._blobs)

    @property
    def folder(self) -> Path:
        """The registry's folder."""
        return self._folder

    def list_adapters(self, *, check: bool = False) -> list[AdapterSummary]:
        """List one entry per name, then one per stored adapter that is in no name's history.

        With ``check``, the files of each adapter are read to find damaged ones.
        """
        state = self._state_files.state()
        rows = [(name, _history(state.names, name)[-1].digest) for name in sorted(state.names.names)]
        rows += [
            (digest[:SHORT_DIGEST_LENGTH], digest) for digest in sorted(self._digests(state) - state.names.mentioned())
        ]
        return [self._summary(state, name, digest, check=check) for name, digest in rows]

    def require_intact(self, manifest: Manifest, *, engine: str | None = None, reread: bool = False) -> None:
        """Raise UnusableFile if the stored files are damaged, NotFound if they are removed.

        See ``AdapterVerifier.require_intact``.
        """
        self._verifier.require_intact(manifest, engine=engine, reread=reread)

    def is_intact(self, digest: str) -> bool:
        """Whether all stored files of an adapter are as they were imported."""
        with suppress(UnusableFile):
            if (manifest := self._blobs.manifest(digest)) is not None:
                self.require_intact(manifest)
                return True
        return False

    def check_lease(self, lease: AdapterLease, *, engine: str = LLAMACPP) -> None:
        """Read the files that the engine is about to load; raises UnusableFile if they are damaged."""
        manifest = self._blobs.manifest(lease.digest)
        # A removed adapter is reported as removed when its file is opened.
        if manifest is not None:
            self.require_intact(manifest, engine=engine, reread=True)

    def get(self, reference: str) -> Manifest:
        """Return the adapter with this name, digest or unique beginning of a digest (4 digits or more).

        Raises NotFound with the closest names, Conflict when a beginning fits several digests.
        """
        return self._get(self._state_files.state(), reference)

    def history(self, name: str) -> tuple[NameVersion, ...]:
        """Return the digests that ``name`` has pointed at, newest last; empty for an unknown name."""
        return self._state_files.state().names.names.get(name, ())

    def find_uses(self, manifest: Manifest) -> list[str]:
        """Return where an adapter is in use, by its digest or any of its names: ``fill``, ``intent@/path``, …"""
        state = self._state_files.state()
        return _find_uses(state.active, {manifest.digest, *state.names.pointing_at(manifest.digest)})

    def resolve(self, task: Task, path: str | None = None, requested: str | None = None) -> Manifest | None:
        """Return the adapter that answers a request, or None for the base alone.

        ``requested`` (name, digest or ``base``) decides if given; else the nearest folder at or above ``path`` that
        has a setting for ``task``; else the setting for everywhere. Raises NotFound for an adapter that was removed.
        """
        state = self._state_files.state()
        reference = requested
        if reference is None and path is not None and state.folders:
            settings = (state.folders[folder] for folder in enclosing_folders(path) if folder in state.folders)
            reference = next((each.tasks[task] for each in settings if task in each.tasks), None)
        if reference is None:
            reference = state.active.everywhere.get(task, BASE)
        return None if reference == BASE else self._get(state, reference)

    def is_named_in_use(self, name: str) -> bool:
        """Return whether ``name`` itself, not only what it points at, was put in use somewhere."""
        return any(reference == name for reference, _ in self._state_files.state().active.uses())

    def own_setting(self, folder: Path) -> RepositoryAdapters | None:
        """Return what was chosen for exactly this folder; None if nothing was."""
        return self._state_files.state().folders.get(os.path.normcase(folder))

    def context_tokens(self, path: str, settings: Settings) -> int:
        """Return how many tokens of other files' code prompts at ``path`` may show: as set, else as the gate found.

        What the gate of tuning found counts in the folder that was learned, up to one with an adapter of its own. It
        counts for no server elsewhere: the user agreed to send code of other files only if the setting says so.
        """
        if settings.repository_context >= 0 or settings.engine == UPSTREAM:
            return max(0, settings.repository_context)
        folders = self._state_files.state().folders
        own = (folders[folder] for folder in (enclosing_folders(path) if folders else ()) if folder in folders)
        return next((each.context for each in own if each.context or Task.FILL in each.tasks), 0)

    def in_use(self) -> list[Manifest]:
        """Return the adapters in use, those used everywhere first; removed and unreadable ones are left out."""
        state = self._state_files.state()
        found: dict[str, Manifest] = {}
        for reference, _where in state.active.uses():
            if reference != BASE:
                with suppress(NotFound, UnusableFile):
                    manifest = self._get(state, reference)
                    found.setdefault(manifest.digest, manifest)
        return [*found.values()]

    def lease(self, manifest: Manifest, scale: float = 1.0, *, engine: str = LLAMACPP) -> AdapterLease:
        """Return what an engine needs to apply the adapter.

        Raises InvalidInput for an engine that cannot serve it, NotFound when it was removed meanwhile.
        """
        manifest.require_engine(engine)
        path = self._blobs.gguf(manifest.digest) if engine == LLAMACPP else self._blobs.peft(manifest.digest)
        if not path.exists():
            raise removed_adapter_error(manifest.name, manifest.digest)
        return AdapterLease(manifest.digest, path, scale, manifest.name)

    def import_(
        self,
        peft_dir: Path,
        *,
        name: str,
        base: BaseModel,
        task: Task | None = None,
        on_notice: Callable[[str], None] = lambda notice: None,
        moves_name: bool = True,
    ) -> Manifest:
        """Store the adapter in ``peft_dir`` and let ``name`` point at it, unless ``moves_name`` is false.

        ``task`` says what it was trained for if its own record does not; None: every task. ``on_notice`` and the
        errors are those of ``BlobStore.add``; an error changes nothing. Importing stored content again only moves the
        name.
        """
        require_usable_name(name)
        with self._change():
            digest = self._blobs.add(
                peft_dir,
                name=name,
                task=task,
                base=base,
                is_intact=self.is_intact,
                before_storing=self._hide,
                on_notice=on_notice,
            )
            names = self._state_files.read_names()
            moved = names.with_version(name, NameVersion(digest, utc_now()))
            self._state_files.write_names(moved if moves_name else AdapterNames(names.names, moved.removed))
            if moved.removed:
                self._delete_removed()
        return self.get(name if moves_name else digest)

    def use(
        self, reference: str, task: Task | tuple[Task, ...] | None = None, repository: Path | None = None
    ) -> Manifest | None:
        """Let an adapter serve ``task``, or several, everywhere or in one folder and below it.

        Without ``task`` it serves all tasks it was trained for. A name follows its later imports and rollbacks, a
        digest is fixed. ``base`` means that no adapter serves there (without ``task``: any task), and returns None.
        Raises NotFound for an unknown adapter or folder.
        """
        if repository is not None and not repository.is_dir():
            raise NotFound(f"no folder {repository}", fix="Give the folder of a repository that exists")
        with self._change():
            state = self._state_files.state()
            manifest = None if reference == BASE else self._get(state, reference)
            if manifest is not None and reference not in state.names.names:
                reference = manifest.digest
            tasks = manifest.tasks if manifest is not None and task is None else _tasks(task)
            self._state_files.write_active(state.active.with_use(reference, tasks, repository))
        return manifest

    def show_context(self, tokens: int, repository: Path) -> None:
        """Let prompts below a folder show at most ``tokens`` tokens of other files' code, until its adapter changes."""
        with self._change():
            self._state_files.write_active(self._state_files.read_active().with_context(tokens, repository))

    def withdraw(self, name: str, digest: str, task: Task) -> bool:
        """Let the base serve ``task`` everywhere again, unless a user chose ``name`` for it.

        Returns whether that was done; nothing is done if ``name`` points at another adapter than ``digest``.
        """
        with self._change():
            names, active = self._state_files.read_names(), self._state_files.read_active()
            history = names.names.get(name, ())
            if not history or history[-1].digest != digest or not active.set_at_import(name, task, names):
                return False
            self._state_files.write_active(active.with_use(BASE, (task,), None))
        return True

    def unset(self, task: Task | None, repository: Path) -> None:
        """Remove a folder's own setting, so that the setting of a folder around it or the general one applies."""
        with self._change():
            active = self._state_files.read_active()
            self._state_files.write_active(active.with_use(None, _tasks(task), repository))

    def rollback(self, name: str) -> Manifest:
        """Let ``name`` point at its previous digest; raises NotFound, or Conflict when it has none.

        The newer adapter stays stored under its digest. What was found of code of other files with it is forgotten.
        """
        with self._change():
            names = self._state_files.read_names()
            if len(_history(names, name)) < 2:
                raise Conflict(
                    f"'{name}' has no earlier version", fix=f"`peft-daemon adapters show {name}` shows its history"
                )
            self._state_files.write_active(self._state_files.read_active().without_context_of(name))
            self._state_files.write_names(names.rolled_back(name))
        return self.get(name)

    def remove(self, reference: str, *, force: bool = False) -> None:
        """Remove a name with its history, or a digest from all histories, and content that nothing needs.

        Raises Conflict if it is in use or, for a digest, if a name points at it; with ``force``, these settings and
        names are removed too. An engine that has loaded the adapter continues to use it.
        """
        with self._change():
            state = self._state_files.state()
            names, active = state.names, state.active
            digest = self._digest(state, reference)
            by_name = reference in names.names
            gone = {reference} if by_name else {digest, *names.pointing_at(digest)}
            if not force:
                _require_unused(reference, gone, state)
            touched = {version.digest for version in names.names.get(reference, ())} | {digest}
            names = names.without_name(reference) if by_name else names.without_digest(digest)
            active = active.without(gone)
            orphans = touched - names.mentioned() - {used for used, _ in active.uses()}
            # Settings, then names, then content: after a crash nothing points at missing content.
            self._state_files.write_active(active)
            self._state_files.write_names(names.with_removed(orphans))
            self._delete_removed()

    def export(self, reference: str, destination: Path, form: Literal["peft", "peft-float16", "gguf"]) -> Path:
        """Copy an adapter out, as a PEFT folder (as trained, or in half precision) or as a GGUF file.

        Returns the path that was written; in an existing folder a GGUF file is named after the adapter. Raises
        Conflict when the target exists, and InvalidInput for an adapter that has no such form.
        """
        manifest = self.get(reference)
        if form == "gguf" and not manifest.gguf_bytes:
            raise InvalidInput(
                f"adapter '{manifest.name}' ({manifest.method}) has no GGUF form",
                why="llama.cpp applies plain LoRAs only",
                fix="Export it with `--format peft`",
            )
        target = destination / f"{manifest.name}.gguf" if form == "gguf" and destination.is_dir() else destination
        if target.exists():
            raise Conflict(f"{target} exists", fix="Give a path that does not exist yet")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if form == "gguf":
                with files.atomic_file(target) as staged:
                    shutil.copyfile(self._blobs.gguf(manifest.digest), staged)
            else:
                with files.atomic_folder(target) as staged:
                    for file in self._blobs.peft(manifest.digest).iterdir():
                        shutil.copyfile(file, staged / file.name)
                    if form == "peft-float16":
                        round_to_float16(staged)
                    write_card(staged, manifest)
        except FileNotFoundError:
            raise removed_adapter_error(manifest.name, manifest.digest) from None
        return target

    def _get(self, state: RegistryState, reference: str) -> Manifest:
        if reference in state.names.names:
            return self._named(state, reference)
        return self._manifest(state, self._digest(state, reference))

    def _digest(self, state: RegistryState, reference: str) -> str:
        """Return the digest that a reference means, even if its files are missing."""
        if reference in state.names.names:
            return _history(state.names, reference)[-1].digest
        if DIGEST_PATTERN.fullmatch(reference) and reference in self._digests(state):
            return reference
        if len(reference) >= MIN_DIGEST_PREFIX and _HEX.issuperset(reference):
            found = sorted(digest for digest in self._digests(state) if digest.startswith(reference))
            if len(found) > 1:
                short = ", ".join(digest[:SHORT_DIGEST_LENGTH] for digest in found)
                raise Conflict(f"'{reference}' begins {len(found)} digests", why=short, fix="Give more digits")
            if found:
                return found[0]
        raise _not_found(reference, state.names)

    def _named(self, state: RegistryState, name: str) -> Manifest:
        return msgspec.structs.replace(self._manifest(state, _history(state.names, name)[-1].digest), name=name)

    def _manifest(self, state: RegistryState, digest: str) -> Manifest:
        if digest in state.manifests:
            return state.manifests[digest]
        stored = None if digest in state.names.removed else self._blobs.manifest(digest)
        if stored is None:
            raise _not_found(digest, state.names)
        name = next(iter(state.names.pointing_at(digest)), digest[:SHORT_DIGEST_LENGTH])
        state.manifests[digest] = manifest = msgspec.structs.replace(stored, name=name)
        return manifest

    def _summary(self, state: RegistryState, name: str, digest: str, *, check: bool) -> AdapterSummary:
        active_for = _find_uses(state.active, {name, digest})
        try:
            manifest = self._manifest(state, digest)
            if check:
                self.require_intact(manifest)
        except NotFound:
            return lost_summary(name, digest, active_for, "its files are gone")
        except UnusableFile as error:
            return lost_summary(name, digest, active_for, error.why)
        return msgspec.structs.replace(manifest, name=name).summary(active_for)

    def _digests(self, state: RegistryState) -> set[str]:
        return self._blobs.digests().difference(state.names.removed)

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Hold the lock that every change needs."""
        from filelock import FileLock, Timeout  # noqa: PLC0415  (requests only read)

        try:
            private_folder(self._folder)
            held = FileLock(self._folder / ".lock", timeout=LOCK_TIMEOUT_S, mode=0o600).acquire()
        except Timeout:
            raise Unavailable(
                "another process is changing the adapters",
                why=f"waited {LOCK_TIMEOUT_S:.0f} s for it to end",
                fix="Try again later",
            ) from None
        except OSError as error:
            raise unwritable(self._folder, error) from None
        with held:
            try:
                self._blobs.prepare()
                try:
                    yield
                finally:
                    self._blobs.prepare()
            except OSError as error:
                raise unwritable(self._folder, error) from error

    def _hide(self, digest: str) -> None:
        """Count new content as removed until a name has it: an import that is killed leaves nothing in any list."""
        state = self._state_files.state()
        if digest not in state.names.mentioned() and not _find_uses(state.active, {digest}):
            self._state_files.write_names(state.names.with_removed((digest,)))

    def _delete_removed(self) -> None:
        """Delete removed content; files that the system refuses to delete stay listed for a later removal."""
        names = self._state_files.read_names()
        left = [digest for digest in names.removed if not self._blobs.discard(digest)]
        self._state_files.write_names(msgspec.structs.replace(names, removed=tuple(left)))


def _tasks(task: Task | tuple[Task, ...] | None) -> tuple[Task, ...]:
    if isinstance(task, Task):
        return (task,)
    return tuple(Task) if task is None else task


def _find_uses(active: ActiveAdapters, references: set[str]) -> list[str]:
    return [where for reference, where in active.uses() if reference in references]


def _history(names: AdapterNames, name: str) -> tuple[NameVersion, ...]:
    if name not in names.names:
        raise _not_found(name, names)
    return names.names[name]


def _require_unused(reference: str, gone: set[str], state: RegistryState) -> None:
    if where := _find_uses(state.active, gone):
        raise Conflict(
            f"'{reference}' is in use",
            why=f"it serves {', '.join(where)}",
            fix="Choose another adapter there with `peft-daemon adapters use`, or add --force",
        )
    if named := sorted(gone.intersection(state.names.names) - {reference}):
        raise Conflict(
            f"'{reference}' is what {', '.join(named)} means",
            fix=f"Remove the name with `peft-daemon adapters remove {named[0]}`, or add --force",
        )


def _not_found(reference: str, names: AdapterNames) -> NotFound:
    close = get_close_matches(reference.lower(), names.names, n=3, cutoff=0.5)
    return NotFound(
        f"no adapter '{reference}'",
        why=f"did you mean {' or '.join(close)}" if close else "",
        fix="`peft-daemon adapters list` shows all adapters",
    )
