"""Code of other files for holes, chosen as the daemon chooses it for a cursor.

Held-out holes are shown the other files as they were before the commits that wrote the holes' lines. Their texts are
read from git into a temporary folder, as the index reads files: no filter or hook of the repository runs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peft_core.api_types import ContextChunk
from peft_core.code.files import SourceListing, list_sources, list_workspace
from peft_core.code.history import texts_at
from peft_core.code.imports import RelatedFiles
from peft_daemon.completion.prompt import shown_characters
from peft_daemon.context.index import MAX_FILES, Index
from peft_daemon.context.selection import SelectionLimits, SelectionQuery, select_chunks
from peft_daemon.engines.limits import LEAST_PROMPT_TOKENS
from peft_tuning.data.examples import FillExample

CONTEXT_TOKENS = 300
"""Tokens of chunks that are tried where no setting says how many."""


class ChunkSelector:
    """Selects chunks of the files of a folder, with an index like the daemon's."""

    def __init__(self, root: Path, listing: SourceListing) -> None:
        """``root`` is a path without links, and ``listing`` has its files, which are read at once."""
        self.index = Index(root)
        for path in self.index.set_listing(listing):
            self.index.update(path)
        self._related = RelatedFiles(self.index.paths, self.index.text)

    def select(self, example: FillExample, limits: SelectionLimits) -> tuple[ContextChunk, ...]:
        """Return the chunks for a hole; of its own file only what the prompt does not show."""
        before, after = example.prefix, example.suffix
        shown = shown_characters(len(before), len(after), LEAST_PROMPT_TOKENS)
        return select_chunks(self.index, self._related, SelectionQuery(example.path, before, after, *shown), (), limits)


@contextmanager
def selector_of_commit(repository: Path, commit: str) -> Iterator[ChunkSelector]:
    """Yield a selector of a repository's files as they were in a commit; raises OSError where the disk is full.

    Raises Unavailable without git, InvalidInput if git refuses the repository.
    """
    paths = [source.path for source in list_workspace(repository.resolve()).files[:MAX_FILES]]
    with tempfile.TemporaryDirectory(prefix="peft-daemon-tree-") as folder:
        root = Path(folder).resolve()
        written = []
        for path, data in texts_at(repository, commit, paths):
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            written.append((path, file))
        yield ChunkSelector(root, list_sources(root, written))
