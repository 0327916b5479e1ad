"""Adapters on the disk, one folder per content digest, complete or absent.

    blobs/<digest>/     manifest.json, peft/…, adapter.gguf where llama.cpp can apply it: written once, never changed
    scratch/            unfinished imports and half-deleted adapters, deleted before the next change

Every change needs the registry's lock. Names and settings are in ``registry_state``.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from peft_core import files
from peft_core.api_types import COMPLETION_TASKS, Task
from peft_core.errors import Conflict, InvalidInput, UnusableFile
from peft_core.files import FileStamp, file_sha256, private_folder
from peft_core.status_types import LLAMACPP
from peft_daemon.adapters import lora_config, peft_files, vectors
from peft_daemon.adapters.lora import LoraAdapter, export_lora_gguf, validate_lora
from peft_daemon.adapters.manifest import DIGEST_PATTERN, Manifest, TrainingRecord, removed_adapter_error
from peft_daemon.adapters.validation import BaseModel, CheckedAdapter

FileStamps = tuple[FileStamp | None, ...]


class BlobStore:
    """The stored adapters below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._blobs = folder / "blobs"
        self._scratch = folder / "scratch"

    def digests(self) -> set[str]:
        """Return the digests of all stored adapters."""
        if not self._blobs.is_dir():
            return set()
        return {entry.name for entry in self._blobs.iterdir() if DIGEST_PATTERN.fullmatch(entry.name)}

    def manifest(self, digest: str) -> Manifest | None:
        """Read the manifest written at import; None if nothing is stored under ``digest``.

        Raises UnusableFile if it cannot be read.
        """
        path = self._blobs / digest / "manifest.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Manifest)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise UnusableFile(
                f"cannot read {path}", why=str(error), fix=f"Delete the folder {path.parent} and import it again"
            ) from None

    def folder(self, digest: str) -> Path:
        """Return the folder with all files of an adapter."""
        return self._blobs / digest

    def gguf(self, digest: str) -> Path:
        """Return the file that llama.cpp loads; it is absent if the adapter has no GGUF form."""
        return self._blobs / digest / "adapter.gguf"

    def peft(self, digest: str) -> Path:
        """Return the stored copy of the PEFT folder that was imported."""
        return self._blobs / digest / "peft"

    def peft_files(self, digest: str) -> list[Path]:
        """Return the required files of that folder, and the optional ones that exist."""
        named = [self.peft(digest) / name for name in peft_files.MAX_FILE_BYTES]
        return [path for path in named if path.name != peft_files.RECORD_FILE or path.exists()]

    def peft_bytes(self, digest: str) -> int:
        """Return the size of that folder's files; raises OSError."""
        return sum(entry.stat().st_size for entry in self.peft(digest).iterdir())

    def add(
        self,
        source: Path,
        *,
        name: str,
        task: Task | None,
        base: BaseModel,
        is_intact: Callable[[str], bool],
        before_storing: Callable[[str], None],
        on_notice: Callable[[str], None],
    ) -> str:
        """Copy, check and export the adapter in ``source``; returns its digest.

        ``on_notice`` is called with a sentence for everything in ``source`` that was found elsewhere or ignored.
        Stored content is replaced only if ``is_intact``, given its digest, returns False; ``before_storing`` is given
        the digest of new content, which is complete by then. Raises what
        ``copy_adapter_files`` and ``check_adapter`` raise, without storing anything; Conflict if damaged content
        cannot be replaced.
        """
        staged = Path(tempfile.mkdtemp(dir=self._scratch, prefix="import-"))
        (staged / "peft").mkdir(mode=0o700)
        notices = peft_files.copy_adapter_files(source, staged / "peft")
        adapter = check_adapter(staged / "peft", base)
        if ignored := drop_ignored_keys(staged / "peft"):
            notices.append(ignored)
        for notice in notices:
            on_notice(notice)
        digest = adapter.digest(base.sha256)
        if (self._blobs / digest).exists() and not is_intact(digest) and not self.discard(digest):
            raise Conflict(
                f"the damaged adapter in {self._blobs / digest} cannot be replaced",
                why="a program has its files open",
                fix="Type `peft-daemon stop`, then import it again",
            )
        if not (self._blobs / digest).exists():
            if isinstance(adapter, LoraAdapter) and adapter.has_gguf_form:
                export_lora_gguf(adapter, staged / "adapter.gguf")
            manifest = _make_manifest(adapter, digest, staged, name=name, task=task, base=base, source=source)
            files.write_durable(staged / "manifest.json", msgspec.json.format(msgspec.json.encode(manifest), indent=2))
            before_storing(digest)
            files.publish_folder(staged, self._blobs / digest)
        return digest

    def discard(self, digest: str) -> bool:
        """Delete an adapter; False where the system refuses because a program has its file open (Windows)."""
        return files.discard_folder(self._blobs / digest, self._scratch)

    def prepare(self) -> None:
        """Create the folders and delete leftovers of an interrupted change; the caller holds the lock."""
        for folder in (self._blobs, self._scratch):
            private_folder(folder)
        for leftover in self._scratch.iterdir():
            shutil.rmtree(leftover, ignore_errors=True)


def utc_now() -> str:
    """Return the time, ISO 8601 in UTC with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _make_manifest(
    adapter: CheckedAdapter, digest: str, staged: Path, *, name: str, task: Task | None, base: BaseModel, source: Path
) -> Manifest:
    record, facts, exported = adapter.record or TrainingRecord(), adapter.facts(), staged / "adapter.gguf"
    files = [*(staged / "peft").iterdir(), *([exported] if exported.exists() else [])]
    return Manifest(
        digest=digest,
        name=name,
        base=base.id,
        base_sha256=base.sha256,
        base_family=adapter.base.architecture,
        quantization=record.quantization,
        prompt_format=record.prompt_format,
        tasks=record.tasks or (COMPLETION_TASKS if task is None else (task,)),
        method=record.method or facts.method,
        rank=facts.rank,
        alpha=facts.alpha,
        virtual_tokens=facts.virtual_tokens,
        targets=facts.targets,
        modules=facts.modules,
        parameters=facts.parameters,
        data_digest=record.data_digest,
        seed=record.seed,
        versions=record.versions,
        metrics=record.metrics,
        licence=record.licence,
        created=record.created or utc_now(),
        source=str(source.absolute()),
        peft_bytes=sum(entry.stat().st_size for entry in (staged / "peft").iterdir()),
        gguf_bytes=exported.stat().st_size if exported.exists() else 0,
        engines=facts.engines,
        scales=facts.scalable,
        scale=record.scale,
        files={path.relative_to(staged).as_posix(): file_sha256(path) for path in sorted(files)},
    )


def check_adapter(folder: Path, base: BaseModel) -> CheckedAdapter:
    """Check the adapter in ``folder`` against ``base``.

    Raises InvalidInput if its files are damaged or unsafe or no engine can serve it, Conflict if it was made for
    another base.
    """
    kind = lora_config.read_config((folder / peft_files.CONFIG_FILE).read_bytes()).get("peft_type")
    if kind == "LORA":
        return validate_lora(folder, base)
    if isinstance(kind, str) and kind in vectors.VECTOR_METHODS:
        return vectors.validate_vectors(folder, base, vectors.VECTOR_METHODS[kind])
    raise InvalidInput(
        f"peft_type is {kind!r}",
        why=f"known types are LORA, {', '.join(vectors.VECTOR_METHODS)}",
        fix=f"Tune with one of `peft-daemon tune`'s methods, or {peft_files.MERGE_INSTEAD}",
    )


def drop_ignored_keys(folder: Path) -> str:
    """Remove the ignored keys from a checked adapter's config; returns a sentence naming them, else "".

    So the stored config holds only what was checked, and an export passes no names of Python code on.
    """
    path = folder / peft_files.CONFIG_FILE
    values = lora_config.read_config(path.read_bytes())
    known = (
        lora_config.KNOWN_KEYS if values["peft_type"] == "LORA" else vectors.VECTOR_METHODS[values["peft_type"]].keys
    )
    ignored = lora_config.ignored_keys(values, known)
    if not ignored:
        return ""
    path.write_bytes(msgspec.json.format(msgspec.json.encode({k: v for k, v in values.items() if k not in ignored})))
    reasons = [
        f"{key} (names Python code, and no code of an adapter is run)"
        if key in lora_config.CODE_KEYS
        else f"{key} (unknown)"
        for key in ignored
    ]
    return f"Ignored in {peft_files.CONFIG_FILE}: {', '.join(reasons)}"


class AdapterVerifier:
    """Check that the stored files of adapters are still those that were imported.

    A check reads the files, which are small. Its result is kept until the stamp of a file changes, so that a check for
    every request reads only stamps.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._results: dict[tuple[str, str | None], tuple[FileStamps, str]] = {}

    def require_intact(self, manifest: Manifest, *, engine: str | None = None, reread: bool = False) -> None:
        """Raise UnusableFile unless the files that ``engine`` loads (None: all files) are as imported.

        They are read if a stamp changed since the last check, or if ``reread``. Raises NotFound where the adapter was
        removed after its manifest was read.
        """
        key = manifest.digest, engine
        stamps = tuple(_stamp_of(path) for path in self._files(manifest, engine))
        result = self._results.get(key)
        if reread or result is None or result[0] != stamps:
            result = self._results[key] = stamps, self._find_damage(manifest, engine)
        if result[1]:
            if not self._blobs.folder(manifest.digest).exists():
                raise removed_adapter_error(manifest.name, manifest.digest)
            raise damaged_adapter_error(manifest.name, result[1])

    def _files(self, manifest: Manifest, engine: str | None) -> Iterator[Path]:
        if manifest.gguf_bytes and engine in (LLAMACPP, None):
            yield self._blobs.gguf(manifest.digest)
        if engine != LLAMACPP:
            yield from self._blobs.peft_files(manifest.digest)

    def _find_damage(self, manifest: Manifest, engine: str | None) -> str:
        """Return what is wrong with the files; empty if nothing is."""
        folder = self._blobs.folder(manifest.digest)
        try:
            for path in self._files(manifest, engine):
                expected = manifest.files.get(path.relative_to(folder).as_posix())
                if expected and file_sha256(path) != expected:
                    return f"{path} is not what was imported"
            # Manifests of earlier versions have sizes only.
            if engine != LLAMACPP and self._blobs.peft_bytes(manifest.digest) != manifest.peft_bytes:
                return f"the files in {self._blobs.peft(manifest.digest)} are not those that were imported"
            gguf = self._blobs.gguf(manifest.digest)
            if manifest.gguf_bytes and engine in (LLAMACPP, None) and gguf.stat().st_size != manifest.gguf_bytes:
                return f"{gguf} is not what was imported"
        except OSError as error:
            return f"{error.filename or folder}: {error.strerror or error}"
        return ""


def damaged_adapter_error(name: str, why: str) -> UnusableFile:
    """Return the error for an adapter whose files are damaged or missing."""
    return UnusableFile(
        f"adapter '{name}' is damaged",
        why=why,
        fix=f"Import it again with `peft-daemon adapters import FOLDER --name {name}`, or remove it with "
        f"`peft-daemon adapters remove {name} --force`",
    )


def _stamp_of(path: Path) -> FileStamp | None:
    try:
        return FileStamp.of(path)
    except OSError:
        return None
