"""The base models on this disk: fetched once, verified by sha256, and handed out as paths.

A model is either installed (complete and verified) or absent: its file is moved into place in one atomic step. An
interrupted download is kept in ``.staging`` and continued by the next pull. Asking for a path does not hash the file;
if its size or time changed, the user is told to run ``models pull``, which hashes it. ``content`` says which files are
a model; ``verifier`` has the checks before an engine loads it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from peft_core import files
from peft_core.errors import Conflict, DownloadFailed, NotFound, is_full
from peft_core.files import file_sha256, format_bytes
from peft_core.http_download import DownloadProgress, NoProgress, PartialFile
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.models.catalogue import ModelEntry
from peft_daemon.models.content import (
    VERIFIED_RECORD_FILE,
    ContentHash,
    ContentStamp,
    VerificationRecord,
    content_bytes,
    content_stamp,
    hash_content,
    read_record,
    write_record,
)
from peft_daemon.models.optimized import ModelFile, read_optimized
from peft_daemon.models.sources import LocalFileSource, ModelSource, SourceFailed, remote_sources

STAGING = ".staging"
FOUND = "found in the folder"
"""Source of content that was not fetched."""


@dataclass(frozen=True)
class InstalledModel:
    """A complete, verified model."""

    id: str
    path: Path
    bytes: int
    sha256: str
    source: str
    """Where it came from, for people."""
    verified: str
    """When its sha256 was last checked; UTC, ISO 8601."""


class ModelStore:
    """The models below ``folder``: ``<id>/<file>`` with its ``verified.json``, and ``.staging``.

    A model of the user's that is used where it lies has its record here, and its optimized copy, but not its file.

    ``free_bytes`` returns the free space on the disk of a folder. ``HF_ENDPOINT`` is read from ``environ``.
    Several processes may use one folder: writers lock a model, readers need no lock.
    """

    def __init__(
        self,
        folder: Path,
        *,
        offline: bool,
        free_bytes: Callable[[Path], int] = files.free_bytes,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.offline = offline
        self._free_bytes = free_bytes
        self._environ = os.environ if environ is None else environ

    def is_installed(self, entry: ModelEntry) -> bool:
        """Whether the model is there and unchanged since it was verified."""
        return self.find(entry) is not None

    def path(self, entry: ModelEntry) -> Path:
        """Return the model's file without hashing it.

        Raises NotFound if it is absent, Conflict if it changed since it was verified.
        """
        if (model := self.find(entry)) is not None:
            return model.path
        if self.file(entry).exists():
            raise Conflict(
                f"{self.file(entry)} is not verified",
                why="its size or time changed, or it was put there by hand",
                fix=f"Type `peft-daemon models pull {entry.id}` to check it",
            )
        if entry.in_place is not None:
            raise _gone(entry)
        raise NotFound(
            f"model '{entry.id}' is not installed",
            fix=f"Type `peft-daemon models pull {entry.id}` ({format_bytes(entry.bytes)})",
        )

    def file_to_serve(self, entry: ModelEntry, settings: Settings) -> ModelFile:
        """Return the file to serve: the optimized copy if there is one and the settings allow it.

        Otherwise it is the original. Raises like ``path``.
        """
        path = self.path(entry)
        # Other engines de-quantize the file, so a copy would cost them quality and give nothing.
        wanted = settings.model_file == "auto" and settings.engine != "torch"
        record = read_optimized(self.home(entry), entry.sha256) if wanted else None
        if record is None:
            return ModelFile(path, entry.sha256)
        return ModelFile(self.home(entry) / record.file, record.sha256, record.recipe)

    def file(self, entry: ModelEntry) -> Path:
        """Return where the model's file or folder belongs; it may not exist."""
        return entry.in_place or self.home(entry) / entry.file

    def home(self, entry: ModelEntry) -> Path:
        """Return the model's folder in this store: for its record, its optimized copy, and the file it fetched."""
        return self.folder / entry.id

    def staging(self, entry: ModelEntry) -> Path:
        """Return the folder for incomplete files of this model; it may not exist."""
        return self._partial(entry).parent

    def require_room(self, entry: ModelEntry, needed: int) -> None:
        """Raise Conflict unless ``needed`` bytes can be written beside the model."""
        if (free := self._free_bytes(self.folder)) < needed:
            raise Conflict(
                f"not enough room for a copy of model '{entry.id}' in {self.folder}",
                why=f"{format_bytes(needed)} needed, {format_bytes(free)} free",
                fix="Free some space and type the command again",
            )

    def staged_bytes(self, entry: ModelEntry) -> int:
        """Return the size of an interrupted download, which the next pull continues."""
        with contextlib.suppress(OSError):
            return self._partial(entry).stat().st_size
        return 0

    def record(self, entry: ModelEntry) -> VerificationRecord | None:
        """Return the record of the last hash, even if the file changed since; None if there is none."""
        record = read_record(self.home(entry))
        return record if record and (record.file, record.sha256) == (entry.file, entry.sha256) else None

    def verify(self, entry: ModelEntry, *, sha256: Callable[[Path], str] = file_sha256) -> InstalledModel:
        """Hash the model's files with ``sha256`` and renew its record, if the store's folder is writable.

        Raises NotFound if the model is absent, Conflict if it is not the catalogue's. It then counts as not
        installed, and the next pull replaces it.
        """
        file = self.file(entry)
        if not file.exists():
            self.path(entry)
        record = read_record(self.home(entry))
        try:
            hashed = hash_content(file, sha256) if content_bytes(file) == entry.bytes else None
        except OSError as error:
            raise _unreadable(file, error) from None
        if hashed is None or not _is_right(entry, hashed):
            with contextlib.suppress(OSError):
                (self.home(entry) / VERIFIED_RECORD_FILE).unlink(missing_ok=True)
            raise _damaged(entry, file)
        return self._record(entry, record.source if record else FOUND, stamp=hashed.stamp, must_write=False)

    def register(self, entry: ModelEntry, hashed: ContentHash) -> InstalledModel:
        """Record a model that is used where it lies, and whose content was read just now, as installed.

        It is read again only if it changed since. Raises Conflict if it is another content now, or if the store's
        folder is not writable.
        """
        file = self.file(entry)
        try:
            with self.locked(entry, NoProgress()):
                if content_stamp(file) != hashed.stamp or not _is_right(entry, hashed):
                    self.verify(entry)
                return self._record(entry, FOUND, stamp=content_stamp(file))
        except OSError as error:
            raise self._unwritable(error) from error

    def pull(
        self, entry: ModelEntry, *, local: Path | None = None, progress: DownloadProgress | None = None
    ) -> InstalledModel:
        """Install the model from ``local``, or from the first of its sources that delivers it.

        Returns at once if it is installed. An interruption (KeyboardInterrupt) keeps what was received. Raises
        DownloadFailed if no source delivers, the sha256 is wrong (the data is deleted), the disk is too small, or the
        network is off; Conflict if the folder is not writable.
        """
        progress = progress or NoProgress()
        if (model := self.find(entry)) is not None:
            return model
        if entry.in_place is not None:
            return self._check_in_place(entry, progress)
        try:
            with self.locked(entry, progress):
                return self.find(entry) or self._adopt(entry, progress) or self._fetch(entry, local, progress)
        except OSError as error:
            if is_full(error):
                raise self._no_room(entry, entry.bytes - self.staged_bytes(entry)) from error
            raise self._unwritable(error) from error

    def remove(self, entry: ModelEntry) -> int:
        """Delete the model and any interrupted download; returns the bytes freed.

        A file that is used where it lies stays there. Raises NotFound if there is nothing, Conflict if the system
        refuses.
        """
        home, staging = self.home(entry), self._partial(entry).parent
        if not home.is_dir() and not staging.is_dir():
            raise NotFound(
                f"model '{entry.id}' is not installed", fix="Type `peft-daemon models list` for what is on this disk"
            )
        try:
            with self.locked(entry, NoProgress()):
                freed = sum(file.stat().st_size for top in (home, staging) for file in top.rglob("*") if file.is_file())
                # The record first: a half-deleted folder must not look installed.
                (home / VERIFIED_RECORD_FILE).unlink(missing_ok=True)
                for folder in (home, staging):
                    if folder.is_dir():
                        shutil.rmtree(folder)
        except OSError as error:
            raise Conflict(
                f"cannot delete {home}",
                why=error.strerror or str(error),
                fix="Stop what is using it with `peft-daemon stop`, then try again",
            ) from error
        return freed

    def _check_in_place(self, entry: ModelEntry, progress: DownloadProgress) -> InstalledModel:
        if not self.file(entry).exists():
            raise _gone(entry)
        with self.locked(entry, progress):
            progress.note(f"checking {self.file(entry)}")
            return self.verify(entry)

    def _fetch(self, entry: ModelEntry, local: Path | None, progress: DownloadProgress) -> InstalledModel:
        if local is not None:
            sources: list[ModelSource] = [LocalFileSource(entry, local)]
        elif self.offline:
            raise DownloadFailed(
                f"model '{entry.id}' is not installed and the network is off",
                why="`offline` is set",
                fix=f"Type `peft-daemon models pull {entry.id} --from FILE`, or set PEFT_DAEMON_OFFLINE=0 once",
            )
        else:
            sources = remote_sources(entry, self._environ)
        reasons = []
        for source in sources:
            try:
                self._fetch_from(entry, source, progress)
            except SourceFailed as failure:
                reasons.append(f"{source.name}: {failure}")
                progress.note(reasons[-1])
                continue
            return self._record(entry, source.name)
        raise DownloadFailed(
            f"cannot fetch model '{entry.id}'",
            why="; ".join(reasons),
            fix=f"Get {entry.file} another way and type `peft-daemon models pull {entry.id} --from FILE`",
        )

    def _fetch_from(self, entry: ModelEntry, source: ModelSource, progress: DownloadProgress) -> None:
        """Complete the partial file from one source, check its hash, and move it into place."""
        path = self._partial(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        with PartialFile(path) as partial:
            if partial.size > entry.bytes:
                partial.cut(0)
            needed = entry.bytes - partial.size + source.scratch_bytes
            if partial.size < entry.bytes and self._free_bytes(path.parent) < needed:
                self._make_room(entry, needed, progress)
            held = f", {format_bytes(partial.size)} already received" if partial.size else ""
            progress.note(f"fetching {entry.id} ({format_bytes(entry.bytes)}) from {source.name}{held}")
            if partial.size < entry.bytes:
                source.fetch(partial, progress)
            partial.sync()
            digest = partial.sha256()
        if digest != entry.sha256:
            shutil.rmtree(path.parent)
            raise SourceFailed(f"wrong data (sha256 {digest[:12]}…, not {entry.sha256[:12]}…), deleted")
        file = self.file(entry)
        file.parent.mkdir(exist_ok=True)
        path.replace(file)
        files.sync_folder(file.parent)
        shutil.rmtree(path.parent)

    def _adopt(self, entry: ModelEntry, progress: DownloadProgress) -> InstalledModel | None:
        """Verify a file that is in place without a valid record; a wrong file stays until it is replaced."""
        file = self.file(entry)
        if not file.is_file():
            return None
        progress.note(f"checking {file}")
        try:
            return self.verify(entry)
        except Conflict as damaged:
            progress.note(f"{damaged.what}; it will be replaced after the download")
            return None

    def _make_room(self, entry: ModelEntry, needed: int, progress: DownloadProgress) -> None:
        """Delete the damaged file that will be replaced, as there is no room for both.

        Raises DownloadFailed, and keeps the file, if deleting it does not free enough.
        """
        file = self.file(entry)
        if not file.is_file() or self._free_bytes(self.folder) + file.stat().st_size < needed:
            raise self._no_room(entry, needed)
        progress.note(f"deleting the damaged {file}: there is no room for both")
        file.unlink()

    def find(self, entry: ModelEntry) -> InstalledModel | None:
        """Return the model if it is there and unchanged since it was verified."""
        record = self.record(entry)
        file = self.file(entry)
        return _installed(entry.id, file, record) if record is not None and record.fits(file) else None

    def _record(
        self, entry: ModelEntry, source: str, *, stamp: ContentStamp | None = None, must_write: bool = True
    ) -> InstalledModel:
        """Record the content as verified; ``stamp`` is the one it had when it was read, None: the one it has now."""
        record = VerificationRecord.of(entry, self.file(entry), source, stamp)
        try:
            write_record(self.home(entry), record)
        except OSError:
            if must_write:
                raise
        return _installed(entry.id, self.file(entry), record)

    @contextlib.contextmanager
    def locked(self, entry: ModelEntry, progress: DownloadProgress) -> Iterator[None]:
        """Hold the model's lock, waiting for as long as another process holds it."""
        from filelock import FileLock, Timeout  # noqa: PLC0415  (readers need no lock)

        staging = self.folder / STAGING
        staging.mkdir(parents=True, exist_ok=True)
        lock = FileLock(staging / f"{entry.id}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress.note(f"another process is working on {entry.id}; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _partial(self, entry: ModelEntry) -> Path:
        # Named by hash: the bytes of another revision cannot be continued.
        return self.folder / STAGING / entry.id / f"{entry.sha256[:16]}.partial"

    def _no_room(self, entry: ModelEntry, needed: int) -> DownloadFailed:
        free = self._free_bytes(self.folder)
        held = self.staged_bytes(entry)
        kept = f"; {format_bytes(held)} already received are kept" if held else ""
        return DownloadFailed(
            f"not enough room for model '{entry.id}' in {self.folder}",
            why=f"{needed} bytes needed ({format_bytes(needed)}), {free} free ({format_bytes(free)}){kept}",
            fix="Free some space, or use another disk: "
            f"`PEFT_DAEMON_MODELS_DIR=/path/with/room peft-daemon models pull {entry.id}`",
        )

    def _unwritable(self, error: OSError) -> Conflict:
        return Conflict(
            f"cannot write to {self.folder}",
            why=error.strerror or str(error),
            fix="Correct its permissions, or set PEFT_DAEMON_MODELS_DIR to another folder",
        )


def open_store(settings: Settings, paths: Paths) -> ModelStore:
    """Return the store in the folder that the settings name, else in the cache folder."""
    folder = Path(settings.models_dir).expanduser().absolute() if settings.models_dir else paths.models
    return ModelStore(folder, offline=settings.offline)


def _installed(model_id: str, file: Path, record: VerificationRecord) -> InstalledModel:
    return InstalledModel(model_id, file, record.bytes, record.sha256, record.source, record.verified)


def _is_right(entry: ModelEntry, hashed: ContentHash) -> bool:
    """Whether this content is the model's."""
    side = entry.folder.side_sha256 if entry.folder else ""
    return (hashed.sha256, hashed.side_sha256) == (entry.sha256, side)


def _gone(entry: ModelEntry) -> NotFound:
    return NotFound(
        f"the {'folder' if entry.folder else 'file'} of model '{entry.id}' is gone: {entry.in_place}",
        why="it was used where it lay, not copied",
        fix=f"Put it back, or take the model out of the list with `peft-daemon models remove {entry.id}`",
    )


def _damaged(entry: ModelEntry, file: Path) -> Conflict:
    return Conflict(
        f"{file} is {'not what was added' if entry.folder else 'damaged'}",
        why="its weights, config, tokenizer or chat template changed"
        if entry.folder
        else "its sha256 is not the catalogue's",
        fix=f"Type `peft-daemon models pull {entry.id}` to replace it"
        if entry.in_place is None
        else f"If it was replaced on purpose: `peft-daemon models remove {entry.id}`, then add it again",
    )


def _unreadable(file: Path, error: OSError) -> Conflict:
    return Conflict(
        f"{error.filename or file} cannot be read",
        why=error.strerror or str(error),
        fix="Correct its permissions, or check the disk",
    )
