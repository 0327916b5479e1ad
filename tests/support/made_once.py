"""What takes minutes to make is made once per machine: kept in a folder that is named by all that decides about it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

import filelock

TIMEOUT_S = 1200
LIBRARIES = ("torch", "transformers", "peft", "safetensors")


def cache_folder() -> Path:
    """The tests' own cache: ``PEFT_DAEMON_TEST_CACHE``, else a folder of the user's."""
    folder = Path(os.environ.get("PEFT_DAEMON_TEST_CACHE", Path.home() / ".cache/peft-daemon-tests"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def made_once(name: str, model_file: Path, sources: Iterable[Path], make: Callable[[Path], None]) -> Path:
    """Return a folder that ``make`` has filled, now or in an earlier run.

    It is made anew when the model, one of ``sources`` (files, or folders of Python files) or a version of the
    libraries that train is another. Several runs may ask at once.
    """
    digest = hashlib.sha256()
    with model_file.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    for source in sources:
        for path in sorted(source.glob("*.py")) if source.is_dir() else [source]:
            digest.update(path.read_bytes())
    digest.update("".join(version(library) for library in LIBRARIES).encode())
    root = cache_folder()
    made = root / f"{name}-{digest.hexdigest()[:16]}"
    with filelock.FileLock(root / f"{name}.lock", timeout=TIMEOUT_S):
        if not made.exists():
            for older in root.glob(f"{name}-*"):
                shutil.rmtree(older)
            part = root / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            make(part)
            part.rename(made)
    return made
