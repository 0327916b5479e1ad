"""Where this editor's documents were edited lately, and which files it saved: told to the daemon when typing pauses.

What was just changed in one file often says what the next one needs. Regions are lines; they move with the edits above
them and grow with those beside them. Only the last few are kept, and they are told whole, so that nothing has to be
told that a message was lost. What cannot be told now is told with the next change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from pygls.uris import to_fs_path

from peft_core.api_types import LONGEST_EDIT, MOST_EDITS, MOST_SAVED, ContextChanged, EditedRegion
from peft_core.privacy.files import secret_file
from peft_lsp.documents import ContentChange, OpenDocument, OpenDocuments, normalize_line_ends

SEND_AFTER_S = 1.0
"""How long nothing happens before it is told."""
MAX_GAP_LINES = 4
"""Lines between two edits that are one region."""
CONTEXT_LINES = 3
"""Lines shown above and below what was edited."""
MAX_REGION_LINES = 40
"""Lines of a region; a larger one is where the last edit was."""

SendContext = Callable[[ContextChanged], Awaitable[None]]
WorkspaceOf = Callable[[str], str | None]


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Region:
    """Lines of a document, counted from 0, both included; with their text once the document is closed."""

    uri: str
    first: int
    last: int
    text: str | None = None

    def after(self, edit: ContentChange) -> Region | None:
        """The region with an edit in or beside it taken in, or moved by one above it; None where that removed it."""
        start, end, added = edit.start[0], edit.end[0], edit.text.count("\n")
        grown = added - (end - start)
        if start > self.last + MAX_GAP_LINES:
            return self
        if end < self.first - MAX_GAP_LINES:
            return replace(self, first=self.first + grown, last=self.last + grown)
        return None

    def joined(self, edit: ContentChange) -> Region:
        """The lines of an edit as they are after it, with those of this region, which it touches."""
        start, end, added = edit.start[0], edit.end[0], edit.text.count("\n")
        first, last = min(self.first, start), max(start + added, self.last + added - (end - start))
        if last - first >= MAX_REGION_LINES:
            first, last = start, min(start + added, start + MAX_REGION_LINES - 1)
        return Region(self.uri, first, last)


def with_edit(regions: Sequence[Region], uri: str, edit: ContentChange) -> tuple[Region, ...]:
    """Regions, the newest first, after one more edit; at most ``MOST_EDITS`` of them."""
    newest = Region(uri, edit.start[0], edit.start[0] + edit.text.count("\n"))
    if newest.last - newest.first >= MAX_REGION_LINES:
        newest = replace(newest, last=newest.first + MAX_REGION_LINES - 1)
    kept: list[Region] = []
    for region in regions:
        if region.uri != uri or region.text is not None:
            kept.append(region)
        elif (moved := region.after(edit)) is not None:
            kept.append(moved)
        else:
            newest = _union(newest, region.joined(edit))
    return (newest, *kept)[:MOST_EDITS]


def _union(one: Region, other: Region) -> Region:
    first, last = min(one.first, other.first), max(one.last, other.last)
    return replace(one, first=first, last=last) if last - first < MAX_REGION_LINES else one


def text_of(region: Region, document: OpenDocument) -> str:
    """The lines of a region and some around it, no more than the daemon takes; empty where there are only blanks."""
    lines = document.lines[max(0, region.first - CONTEXT_LINES) : region.last + 1 + CONTEXT_LINES]
    text = normalize_line_ends("".join(lines)).strip("\n")
    while len(text) > LONGEST_EDIT and "\n" in text:
        text = text.rpartition("\n")[0]
    return text if text.strip() and len(text) <= LONGEST_EDIT else ""


class RecentEdits:
    """The regions of all documents of one editor, and the files it saved since the last telling."""

    def __init__(self, documents: OpenDocuments, tell: SendContext, workspace_of: WorkspaceOf) -> None:
        """``workspace_of`` gives the folder that a file's path belongs to; what belongs to none is not told."""
        self._documents, self._tell, self._workspace_of = documents, tell, workspace_of
        self._regions: tuple[Region, ...] = ()
        self._saved: dict[str, None] = {}
        self._told: dict[str, list[EditedRegion]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._telling = BackgroundTasks(log, "the daemon could not be told of recent edits")

    def edited(self, uri: str, edits: Sequence[ContentChange]) -> None:
        """A document was edited; of one that holds secrets nothing is told."""
        document = self._documents.get(uri)
        if document is None or secret_file(uri, document.language) is not None:
            return
        for edit in edits:
            self._regions = with_edit(self._regions, uri, edit)
        if edits:
            self._later()

    def saved(self, uri: str) -> None:
        """A document was written to its file."""
        if (path := _path(uri)) is not None and len(self._saved) < MOST_SAVED:
            self._saved[path] = None
            self._later()

    def closing(self, uri: str) -> None:
        """A document is about to be closed: its regions stay as they are now."""
        document = self._documents.get(uri)
        self._regions = tuple(
            replace(each, text=text_of(each, document)) if document and each.uri == uri and each.text is None else each
            for each in self._regions
        )

    def close(self) -> None:
        """Tell nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._telling.cancel()

    def news(self) -> tuple[ContextChanged, ...]:
        """What is to be told, a message for each workspace; saved files are told once."""
        saved: dict[str, list[str]] = {}
        for written in self._saved:
            if (root := self._workspace_of(written)) is not None:
                saved.setdefault(root, []).append(written)
        self._saved = {}
        edits: dict[str, list[EditedRegion]] = {root: [] for root in self._told}
        for region in self._regions:
            path, document = _path(region.uri), self._documents.get(region.uri)
            text = region.text if region.text is not None else text_of(region, document) if document else ""
            root = self._workspace_of(path) if path else None
            if path and root and text:
                edits.setdefault(root, []).append(EditedRegion(path, text))
        changed = {root: regions for root, regions in edits.items() if self._told.get(root, []) != regions}
        self._told = {root: regions for root, regions in edits.items() if regions}
        return tuple(
            ContextChanged(workspace=root, saved=saved.get(root, []), edits=changed.get(root))
            for root in dict.fromkeys((*saved, *changed))
        )

    def _later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(SEND_AFTER_S, self._now)

    def _now(self) -> None:
        self._timer = None
        for each in self.news():
            self._telling.spawn(self._send(each))

    async def _send(self, news: ContextChanged) -> None:
        await self._tell(news)


def _path(uri: str) -> str | None:
    """The path of a document of which may be told; None for one without, and for a file that holds secrets."""
    path = to_fs_path(uri) if uri.startswith("file:") else None
    return path if path and len(path) <= 4096 and secret_file(path) is None else None
