"""The faster copy of a model that `models optimize` may leave beside it, and the record that says what it is.

The copy stands in for the original: it is handed out only while it is the file that was recorded and the original is
the one it was made of. How copies are made and judged is in ``requantize``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from peft_core.files import SHARED_MODE, FileStamp, sample_sha256, sync_file, sync_folder, write_atomic
from peft_daemon.models.catalogue import FileName, Sha256

OPTIMIZED_RECORD_FILE = "optimized.json"
OPTIMIZED_SUFFIX = ".optimized.gguf"


class CopyFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of a copy, each against the original in the same rounds."""

    reading: float
    """Speed of reading a prompt, a multiple of the original's."""
    writing: float
    """Speed of writing an answer, a multiple of the original's."""
    loss: float
    """Nats per place of real code that the copy is worse than the original; negative where it is better."""
    loss_bound: float
    """Upper end of the one-sided 95 % interval of ``loss``."""
    places: int
    """Places the loss was measured at."""
    lines: int
    """Lines that were to be completed."""
    right: int
    """Of them, those that the copy completed as they stand in the file."""
    right_original: int
    """Of them, those that the original did."""
    same: int
    """Of them, those for which both wrote the same."""


class OptimizedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """``optimized.json``: what the copy was made of, how, and what was measured."""

    file: FileName
    sha256: Sha256
    bytes: int
    mtime_ns: int
    stamp: FileStamp | None = None
    """Of the file when it was hashed; None in records without."""
    sample: str = ""
    """See ``disk.sample_sha256``."""
    source_sha256: Sha256
    """Of the original: adapters made for it serve on the copy."""
    recipe: str
    adapter: str
    """Name of the adapter that it was judged with, the one that answers everywhere; empty for none."""
    figures: CopyFigures
    versions: dict[str, str]
    """Of the libraries that made and measured it."""
    processor: str
    """The processor it was measured on."""
    created: str
    """UTC, ISO 8601."""
    verified: str = ""
    """When its sha256 was last checked, if it was since; UTC, ISO 8601."""


@dataclass(frozen=True)
class ModelFile:
    """The file that is to be served, and the sha256 of its own bytes: cached states are keyed by that."""

    path: Path
    sha256: str
    recipe: str = ""
    """How it was made of the original; empty for the original itself."""


def read_optimized(folder: Path, source_sha256: str) -> OptimizedRecord | None:
    """The record in a model's ``folder``, if its file is unchanged and was made of this original."""
    if (record := read_optimized_record(folder, source_sha256)) is None:
        return None
    try:
        info = (folder / record.file).stat()
    except OSError:
        return None
    return record if (info.st_size, info.st_mtime_ns) == (record.bytes, record.mtime_ns) else None


def read_optimized_record(folder: Path, source_sha256: str) -> OptimizedRecord | None:
    """The record in a model's ``folder``, if it is of a copy of this original, whatever became of the copy."""
    try:
        record = msgspec.json.decode((folder / OPTIMIZED_RECORD_FILE).read_bytes(), type=OptimizedRecord)
    except (OSError, ValueError, RecursionError):
        return None
    return record if record.source_sha256 == source_sha256 else None


def publish_optimized(
    folder: Path,
    made: ModelFile,
    *,
    name: str,
    source_sha256: str,
    adapter: str,
    figures: CopyFigures,
    versions: dict[str, str],
    processor: str,
) -> OptimizedRecord:
    """Move ``made`` into ``folder`` as ``<name>-<recipe>.optimized.gguf`` and write its record, the last step.

    A copy that was kept before serves until then and is deleted. Raises OSError.
    """
    target = folder / f"{name}-{made.recipe}{OPTIMIZED_SUFFIX}"
    sync_file(made.path)
    made.path.replace(target)
    info = target.stat()
    record = OptimizedRecord(
        file=target.name,
        sha256=made.sha256,
        bytes=info.st_size,
        mtime_ns=info.st_mtime_ns,
        stamp=FileStamp.of(target),
        sample=sample_sha256(target),
        source_sha256=source_sha256,
        recipe=made.recipe,
        adapter=adapter,
        figures=figures,
        versions=versions,
        processor=processor,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_optimized_record(folder, record)
    sync_folder(folder)
    for old in folder.glob(f"*{OPTIMIZED_SUFFIX}"):
        if old != target:
            old.unlink()
    return record


def write_optimized_record(folder: Path, record: OptimizedRecord) -> None:
    """Replace the record of the copy in ``folder``; raises OSError."""
    content = msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"
    write_atomic(folder / OPTIMIZED_RECORD_FILE, content, SHARED_MODE)


def remove_optimized(folder: Path) -> int:
    """Delete the copy and its record, whatever state they are in; returns the bytes freed."""
    # The record first: without it nothing hands the file out.
    (folder / OPTIMIZED_RECORD_FILE).unlink(missing_ok=True)
    freed = 0
    for file in folder.glob(f"*{OPTIMIZED_SUFFIX}"):
        freed += file.stat().st_size
        file.unlink()
    return freed
