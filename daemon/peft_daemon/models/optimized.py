"""The faster copy of a model that `models optimize` may leave beside it, and the record that says what it is.

The copy is served instead of the original, as long as neither file has changed since it was made. ``requantize`` makes
and measures copies.
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
    """Measurements of a copy, each compared with the original in the same rounds."""

    reading: float
    """Speed of reading a prompt, as a multiple of the original's."""
    writing: float
    """Speed of writing an answer, as a multiple of the original's."""
    loss: float
    """Increase of the loss over the original's, in nats per position in real code; negative if the copy is better."""
    loss_bound: float
    """Upper end of the one-sided 95 % interval of ``loss``."""
    places: int
    """Number of positions at which the loss was measured."""
    lines: int
    """Number of lines that both models had to complete."""
    right: int
    """How many of these lines the copy completed exactly as they stand in the file."""
    right_original: int
    """How many of them the original completed exactly."""
    same: int
    """How many of them both completed alike."""


class OptimizedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """``optimized.json``: how a copy was made and from what, and its measurements."""

    file: FileName
    sha256: Sha256
    bytes: int
    mtime_ns: int
    stamp: FileStamp | None = None
    """Stamp of the file when it was hashed; None in older records."""
    sample: str = ""
    """``files.sample_sha256`` of the file when it was hashed; empty in older records."""
    source_sha256: Sha256
    """sha256 of the original. Adapters made for the original fit the copy too."""
    recipe: str
    adapter: str
    """Name of the adapter that it was measured with, the one in use everywhere; empty for none."""
    figures: CopyFigures
    versions: dict[str, str]
    """Versions of the libraries that made and measured it."""
    processor: str
    """The processor it was measured on."""
    created: str
    """UTC, ISO 8601."""
    verified: str = ""
    """When its sha256 was last checked again; UTC, ISO 8601. Empty if it was not since its creation."""


@dataclass(frozen=True)
class ModelFile:
    """A model file to serve."""

    path: Path
    sha256: str
    """sha256 of this file, not of the original that a copy was made from. Saved KV states are keyed by it."""
    recipe: str = ""
    """How it was made from the original; empty for the original itself."""


def read_optimized(folder: Path, source_sha256: str) -> OptimizedRecord | None:
    """Return the record in ``folder`` if its copy is unchanged and was made from this original, else None."""
    if (record := read_optimized_record(folder, source_sha256)) is None:
        return None
    try:
        info = (folder / record.file).stat()
    except OSError:
        return None
    return record if (info.st_size, info.st_mtime_ns) == (record.bytes, record.mtime_ns) else None


def read_optimized_record(folder: Path, source_sha256: str) -> OptimizedRecord | None:
    """Return the record in ``folder`` if its copy was made from this original, even if the copy changed."""
    try:
        record = msgspec.json.decode((folder / OPTIMIZED_RECORD_FILE).read_bytes(), type=OptimizedRecord)
    except (OSError, ValueError, RecursionError):
        return None
    return record if record.source_sha256 == source_sha256 else None


def publish_optimized(
    folder: Path,
    copy: ModelFile,
    *,
    name: str,
    source_sha256: str,
    adapter: str,
    figures: CopyFigures,
    versions: dict[str, str],
    processor: str,
) -> OptimizedRecord:
    """Move ``copy`` into ``folder`` as ``<name>-<recipe>.optimized.gguf``, then write its record.

    An earlier copy stays in use until the record is written, and is then deleted. Raises OSError.
    """
    target = folder / f"{name}-{copy.recipe}{OPTIMIZED_SUFFIX}"
    sync_file(copy.path)
    copy.path.replace(target)
    info = target.stat()
    record = OptimizedRecord(
        file=target.name,
        sha256=copy.sha256,
        bytes=info.st_size,
        mtime_ns=info.st_mtime_ns,
        stamp=FileStamp.of(target),
        sample=sample_sha256(target),
        source_sha256=source_sha256,
        recipe=copy.recipe,
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
    """Delete the copy and its record, also if they are damaged; returns the bytes freed."""
    # The record first: without it the copy is not used.
    (folder / OPTIMIZED_RECORD_FILE).unlink(missing_ok=True)
    freed = 0
    for file in folder.glob(f"*{OPTIMIZED_SUFFIX}"):
        freed += file.stat().st_size
        file.unlink()
    return freed
