"""The folders of the editor's workspace, and which of them a document belongs to.

Only folders of this machine count: the daemon may read their source files for context, and it reads no others.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pygls.uris import to_fs_path

from peft_lsp.documents import LONGEST_PATH


class Folders:
    """The folders that are open now."""

    def __init__(self, uris: Iterable[str] = ()) -> None:
        self._paths: dict[str, Path] = {}
        self.change((), uris)

    def change(self, removed: Iterable[str], added: Iterable[str]) -> None:
        """Some were closed, others opened; both by their URIs."""
        for uri in removed:
            self._paths.pop(uri, None)
        for uri in added:
            path = to_fs_path(uri) if uri.startswith("file:") else None
            if path is not None and len(path) <= LONGEST_PATH:
                self._paths[uri] = Path(path)

    def around(self, path: str | None) -> str | None:
        """The innermost folder with this file in it, as an absolute path; None without one."""
        if path is None:
            return None
        above = Path(path).parents
        found = [folder for folder in self._paths.values() if folder in above]
        return str(max(found, key=lambda folder: len(folder.parts))) if found else None
