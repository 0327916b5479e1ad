"""The folder a trace is edited in: a copy of the code base in which the files to be written are as they were before.

The copy matters to systems that look for context in other files: in the installed package they would find the truth.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from peft_evaluation.typing.traces import Trace

MOST_FILES = 1000
LARGEST_BYTES = 1_000_000


class Workspace:
    """A temporary folder; use it in a ``with`` block."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        # Short: a unix socket's path, somewhere below it, has room for 103 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="pdb-"))
        """For a system's own files ..."""
        self.folder = self.home / "work"
        """... and the code."""

    def __enter__(self) -> Workspace:
        for name in self._around():
            self._copy(name)
        for file in self._trace.files:
            self.write(file.name, file.before)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.home, ignore_errors=True)

    def path(self, name: str) -> Path:
        """Where a file of the trace is."""
        return self.folder / name

    def read(self, name: str) -> str:
        """A file as it was last saved."""
        return self.path(name).read_text(encoding="utf-8")

    def write(self, name: str, text: str) -> None:
        """Save a file."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _around(self) -> list[str]:
        """The Python files of the top folders that the trace's files are in."""
        root = Path(self._trace.root)
        tops = {file.name.split("/")[0] for file in self._trace.files}
        found: list[str] = []
        for top in sorted(tops):
            place = root / top
            files = sorted(place.rglob("*.py")) if place.is_dir() else []
            found += [file.relative_to(root).as_posix() for file in files]
        return found[:MOST_FILES]

    def _copy(self, name: str) -> None:
        source, target = Path(self._trace.root) / name, self.path(name)
        if source.is_file() and not source.is_symlink() and source.stat().st_size <= LARGEST_BYTES:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
