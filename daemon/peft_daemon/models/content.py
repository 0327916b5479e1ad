"""The content of a model on this disk: one GGUF file, or the files of a folder in transformers' layout.

A model is known by the sha256 of its weights, because adapters are made for weights. The other files of a folder that
decide what the model computes (config, tokenizer, chat template) have a hash of their own, so that a change of any of
them is noticed too. All functions take the path of a file or of a folder; links are followed. ``verified.json`` records
which content was hashed, when, and what shows whether it changed since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from peft_core.errors import Conflict
from peft_core.files import SHARED_MODE, FileStamp, file_sha256, sample_sha256, write_atomic
from peft_daemon.models.catalogue import FileName, ModelEntry, Sha256

ContentStamp = FileStamp | tuple[FileStamp, ...]
"""The stamp of a file, or those of all files of a folder in the order of their names."""

SIDE_FILES = frozenset(
    {
        *("config.json", "generation_config.json", "model.safetensors.index.json", "adapter_config.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"),
    }
)
"""Files beside the weights that are read when a folder is loaded, or that would change how it is loaded."""
VERIFIED_RECORD_FILE = "verified.json"
MAX_HASH_TRIES = 3
"""How often a file is hashed when it changes while it is hashed."""


@dataclass(frozen=True)
class ContentHash:
    """What was found when all of a model's content was read."""

    sha256: str
    """Of the weights: of the only file, or over the names and hashes of several."""
    side_sha256: str
    """Over the names and hashes of the other files of a folder; empty for a file."""
    bytes: int
    stamp: ContentStamp


def weight_files(path: Path) -> tuple[Path, ...]:
    """Return the file, or the safetensors files of a folder by name; raises OSError."""
    if not path.is_dir():
        return (path,)
    return tuple(sorted(each for each in path.iterdir() if each.suffix == ".safetensors" and each.is_file()))


def side_files(path: Path) -> tuple[Path, ...]:
    """Return the other files of a folder that count, by name; raises OSError."""
    if not path.is_dir():
        return ()
    return tuple(sorted(each for each in path.iterdir() if each.name in SIDE_FILES and each.is_file()))


def content_bytes(path: Path) -> int:
    """Return the size of all content; raises OSError."""
    return sum(each.stat().st_size for each in _all_files(path))


def newest_mtime_ns(path: Path) -> int:
    """Return when the content was written last; raises OSError."""
    return max((each.stat().st_mtime_ns for each in _all_files(path)), default=0)


def content_stamp(path: Path) -> ContentStamp:
    """Return the stamp of the content now; raises OSError."""
    if not path.is_dir():
        return FileStamp.of(path)
    return tuple(FileStamp.of(each) for each in _all_files(path))


def content_sample(path: Path) -> str:
    """Return the hash of samples of the content (``files.sample_sha256``); raises OSError."""
    if not path.is_dir():
        return sample_sha256(path)
    return _combined(_all_files(path), sample_sha256)


def weights_sha256(path: Path, sha256: Callable[[Path], str] = file_sha256) -> str:
    """Return the hash by which a model is known; ``sha256`` hashes one file. Raises OSError."""
    files = weight_files(path)
    return sha256(files[0]) if len(files) == 1 else _combined(files, sha256)


def hash_content(path: Path, sha256: Callable[[Path], str] = file_sha256) -> ContentHash:
    """Read all content, again if it changes meanwhile; ``sha256`` hashes one file.

    Raises OSError, and Conflict if it does not stop changing.
    """
    for _ in range(MAX_HASH_TRIES):
        stamp = content_stamp(path)
        sides = side_files(path)
        found = ContentHash(
            sha256=weights_sha256(path, sha256),
            side_sha256=_combined(sides, sha256) if path.is_dir() else "",
            bytes=content_bytes(path),
            stamp=stamp,
        )
        if content_stamp(path) == stamp:
            return found
    raise Conflict(f"{path} is being written", fix="Try again when that is done")


def _all_files(path: Path) -> tuple[Path, ...]:
    return (*weight_files(path), *side_files(path))


def _combined(files: Iterable[Path], digest: Callable[[Path], str]) -> str:
    lines = "".join(f"{digest(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


class VerificationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """``verified.json`` of one model."""

    file: FileName
    sha256: Sha256
    bytes: int
    mtime_ns: int
    """Of a folder, the newest of its files'."""
    stamp: ContentStamp | None = None
    """Stamp of the content when it was hashed; None in older records."""
    sample: str = ""
    """``content_sample`` when it was hashed; empty in older records."""
    verified: str
    """UTC, ISO 8601."""
    source: str

    @classmethod
    def of(cls, entry: ModelEntry, path: Path, source: str, stamp: ContentStamp | None = None) -> VerificationRecord:
        """Return the record of content that is the model's; raises OSError.

        ``stamp`` is the one it had when it was hashed; None takes the present one.
        """
        return cls(
            file=entry.file,
            sha256=entry.sha256,
            bytes=content_bytes(path),
            mtime_ns=newest_mtime_ns(path),
            stamp=stamp or content_stamp(path),
            sample=content_sample(path),
            verified=datetime.now(UTC).isoformat(timespec="seconds"),
            source=source,
        )

    def fits(self, path: Path) -> bool:
        """Whether the content has the recorded size and time still; False if it is gone."""
        try:
            return (content_bytes(path), newest_mtime_ns(path)) == (self.bytes, self.mtime_ns)
        except OSError:
            return False


def read_record(home: Path) -> VerificationRecord | None:
    """Return the record in a model's folder of the store; None if there is none that can be read."""
    try:
        return msgspec.json.decode((home / VERIFIED_RECORD_FILE).read_bytes(), type=VerificationRecord)
    except (OSError, ValueError, RecursionError):
        return None


def write_record(home: Path, record: VerificationRecord) -> None:
    """Write the record into a model's folder of the store; raises OSError."""
    home.mkdir(parents=True, exist_ok=True)
    content = msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"
    write_atomic(home / VERIFIED_RECORD_FILE, content, SHARED_MODE)
