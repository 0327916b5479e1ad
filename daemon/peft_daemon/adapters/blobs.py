"""Adapters on the disk, one folder per content digest, complete or absent.

    blobs/<digest>/     manifest.json, peft/…, adapter.gguf where llama.cpp can apply it: written once, never changed
    scratch/            unfinished imports and half-deleted adapters, swept before the next change

Names and settings are the registry's; so is the lock that every change here needs.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from peft_core import files
from peft_core.api_types import Task
from peft_core.errors import Conflict, UnusableFile
from peft_core.files import file_sha256, private_folder
from peft_daemon.adapters import peft_files
from peft_daemon.adapters.checking import check, drop_ignored_keys
from peft_daemon.adapters.facts import CheckedAdapter
from peft_daemon.adapters.manifest import Manifest, TrainingRecord
from peft_daemon.adapters.validation import BaseModel, LoraAdapter

DIGEST = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """The stored adapters below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._blobs = folder / "blobs"
        self._scratch = folder / "scratch"

    def digests(self) -> set[str]:
        """Of everything stored."""
        if not self._blobs.is_dir():
            return set()
        return {entry.name for entry in self._blobs.iterdir() if DIGEST.fullmatch(entry.name)}

    def manifest(self, digest: str) -> Manifest | None:
        """As it was written at import; None when nothing is stored under ``digest``."""
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
        """Where everything of an adapter lies."""
        return self._blobs / digest

    def gguf(self, digest: str) -> Path:
        """The file llama.cpp loads."""
        return self._blobs / digest / "adapter.gguf"

    def peft(self, digest: str) -> Path:
        """The PEFT folder it was made from."""
        return self._blobs / digest / "peft"

    def peft_files(self, digest: str) -> list[Path]:
        """The files of that folder that may be there, and those that have to be."""
        named = [self.peft(digest) / name for name in peft_files.LIMITS]
        return [path for path in named if path.name != peft_files.RECORD or path.exists()]

    def peft_bytes(self, digest: str) -> int:
        """Size of that folder's files; raises OSError."""
        return sum(entry.stat().st_size for entry in self.peft(digest).iterdir())

    def add(
        self,
        source: Path,
        *,
        name: str,
        task: Task | None,
        base: BaseModel,
        is_intact: Callable[[str], bool],
        on_notice: Callable[[str], None],
    ) -> str:
        """Copy, check and export the adapter in ``source``; returns its digest.

        ``on_notice`` is given a sentence for each thing in ``source`` that was found elsewhere or ignored.
        Raises what ``peft_files.take`` and ``checking.check`` raise; nothing is stored then. Content that is
        stored already is left as it is, unless ``is_intact`` says that it was damaged.
        """
        from peft_daemon.adapters.gguf_export import export  # noqa: PLC0415  (only changes need it)

        staged = Path(tempfile.mkdtemp(dir=self._scratch, prefix="import-"))
        (staged / "peft").mkdir(mode=0o700)
        notices = peft_files.take(source, staged / "peft")
        adapter = check(staged / "peft", base)
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
                export(adapter, staged / "adapter.gguf")
            manifest = _describe(adapter, digest, staged, name=name, task=task, base=base, source=source)
            files.write_durable(staged / "manifest.json", msgspec.json.format(msgspec.json.encode(manifest), indent=2))
            files.publish_folder(staged, self._blobs / digest)
        return digest

    def discard(self, digest: str) -> bool:
        """Delete an adapter; False where the system refuses because a program has its file open (Windows)."""
        return files.discard_folder(self._blobs / digest, self._scratch)

    def prepare(self) -> None:
        """Make the folders and sweep what an interrupted change left; call it with the lock held."""
        for folder in (self._blobs, self._scratch):
            private_folder(folder)
        for leftover in self._scratch.iterdir():
            shutil.rmtree(leftover, ignore_errors=True)


def now() -> str:
    """The time, ISO 8601 in UTC with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _describe(
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
        tasks=record.tasks or (tuple(Task) if task is None else (task,)),
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
        created=record.created or now(),
        source=str(source.absolute()),
        peft_bytes=sum(entry.stat().st_size for entry in (staged / "peft").iterdir()),
        gguf_bytes=exported.stat().st_size if exported.exists() else 0,
        engines=facts.engines,
        files={path.relative_to(staged).as_posix(): file_sha256(path) for path in sorted(files)},
    )
