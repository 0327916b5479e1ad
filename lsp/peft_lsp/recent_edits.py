"""The regions edited lately and the files saved by this editor, reported to the daemon when typing pauses.

A change in one file often shows what the next file needs. Regions are lines; they move with edits above them and grow
with edits next to them. Only the newest are kept, and each report contains all of them, so a lost report does no harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from pygls.uris import to_fs_path

from peft_core.api_types import LONGEST_EDIT, MOST_EDITS, MOST_SAVED, ContextChanged, EditedRegion
from peft_core.paths import MAX_PATH_CHARS
from peft_core.privacy.files import secret_file
from peft_core.tasks import BackgroundTasks
from peft_lsp.documents import ContentChange, OpenDocument, OpenDocuments, normalize_line_ends

SEND_AFTER_S = 1.0
"""How long after the last edit or save the changes are reported."""
MAX_GAP_LINES = 4
"""Edits with at most this many lines between them form one region."""
CONTEXT_LINES = 3
"""Lines shown above and below what was edited."""
MAX_REGION_LINES = 40
"""Most lines of a region; of a larger one only the last edit is kept."""

SendContext = Callable[[ContextChanged], Awaitable[None]]
WorkspaceOf = Callable[[str], str | None]


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Region:
    """Lines ``first`` to ``last`` of a document (from 0, both included); ``text`` is set once it is closed."""

    uri: str
    first: int
    last: int
    text: str | None = None

    def shifted(self, edit: ContentChange) -> Region | None:
        """Return the region after an edit elsewhere in the document; None for an edit in or beside it."""
        start, end, added = edit.start[0], edit.end[0], edit.text.count("\n")
        grown = added - (end - start)
        if start > self.last + MAX_GAP_LINES:
            return self
        if end < self.first - MAX_GAP_LINES:
            return replace(self, first=self.first + grown, last=self.last + grown)
        return None

    def joined(self, edit: ContentChange) -> Region:
        """Return the region joined with the lines of an edit that touches it, as they are after the edit."""
        start, end, added = edit.start[0], edit.end[0], edit.text.count("\n")
        first, last = min(self.first, start), max(start + added, self.last + added - (end - start))
        if last - first >= MAX_REGION_LINES:
            first, last = start, min(start + added, start + MAX_REGION_LINES - 1)
        return Region(self.uri, first, last)


def with_edit(regions: Sequence[Region], uri: str, edit: ContentChange) -> tuple[Region, ...]:
    """Return the regions after one more edit, the newest first; at most ``MOST_EDITS`` of them."""
    newest = Region(uri, edit.start[0], edit.start[0] + edit.text.count("\n"))
    if newest.last - newest.first >= MAX_REGION_LINES:
        newest = replace(newest, last=newest.first + MAX_REGION_LINES - 1)
    kept: list[Region] = []
    for region in regions:
        if region.uri != uri or region.text is not None:
            kept.append(region)
        elif (shifted := region.shifted(edit)) is not None:
            kept.append(shifted)
        else:
            newest = _union(newest, region.joined(edit))
    return (newest, *kept)[:MOST_EDITS]


def _union(one: Region, other: Region) -> Region:
    first, last = min(one.first, other.first), max(one.last, other.last)
    return replace(one, first=first, last=last) if last - first < MAX_REGION_LINES else one


def region_text(region: Region, document: OpenDocument) -> str:
    """Return the lines of a region and some around it, as many as the daemon accepts; empty if all are blank."""
    lines = document.lines[max(0, region.first - CONTEXT_LINES) : region.last + 1 + CONTEXT_LINES]
    text = normalize_line_ends("".join(lines)).strip("\n")
    while len(text) > LONGEST_EDIT and "\n" in text:
        text = text.rpartition("\n")[0]
    return text if text.strip() and len(text) <= LONGEST_EDIT else ""


class RecentEdits:
    """The regions of all documents of one editor, and the files it saved since the last report."""

    def __init__(self, documents: OpenDocuments, send: SendContext, workspace_of: WorkspaceOf) -> None:
        """``workspace_of`` returns the workspace folder of a file's path; files outside are not reported."""
        self._documents, self._send, self._workspace_of = documents, send, workspace_of
        self._regions: tuple[Region, ...] = ()
        self._saved: dict[str, None] = {}
        self._sent: dict[str, list[EditedRegion]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._sending = BackgroundTasks(log, "the daemon could not be told of recent edits")

    def edited(self, uri: str, edits: Sequence[ContentChange]) -> None:
        """Note the edits of a document, unless it holds secrets."""
        document = self._documents.get(uri)
        if document is None or secret_file(document.file_uri, document.language) is not None:
            return
        for edit in edits:
            self._regions = with_edit(self._regions, uri, edit)
        if edits:
            self._schedule()

    def saved(self, uri: str) -> None:
        """Note that a document was written to its file."""
        if (path := _path(uri)) is not None and len(self._saved) < MOST_SAVED:
            self._saved[path] = None
            self._schedule()

    def closing(self, uri: str) -> None:
        """Keep the text of the regions of a document that is about to be closed."""
        document = self._documents.get(uri)
        self._regions = tuple(
            replace(each, uri=document.file_uri, text=region_text(each, document))
            if document and each.uri == uri and each.text is None
            else each
            for each in self._regions
        )

    def close(self) -> None:
        """Stop reporting."""
        if self._timer is not None:
            self._timer.cancel()
        self._sending.cancel()

    def take_reports(self) -> tuple[ContextChanged, ...]:
        """Return the reports that are due, one for each workspace; each saved file is reported once."""
        saved: dict[str, list[str]] = {}
        for written in self._saved:
            if (root := self._workspace_of(written)) is not None:
                saved.setdefault(root, []).append(written)
        self._saved = {}
        edits: dict[str, list[EditedRegion]] = {root: [] for root in self._sent}
        for region in self._regions:
            path, document = _path(self._documents.file_uri(region.uri)), self._documents.get(region.uri)
            text = region.text if region.text is not None else region_text(region, document) if document else ""
            root = self._workspace_of(path) if path else None
            if path and root and text:
                edits.setdefault(root, []).append(EditedRegion(path, text))
        changed = {root: regions for root, regions in edits.items() if self._sent.get(root, []) != regions}
        self._sent = {root: regions for root, regions in edits.items() if regions}
        return tuple(
            ContextChanged(workspace=root, saved=saved.get(root, []), edits=changed.get(root))
            for root in dict.fromkeys((*saved, *changed))
        )

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(SEND_AFTER_S, self._send_due)

    def _send_due(self) -> None:
        self._timer = None
        for each in self.take_reports():
            self._sending.spawn(self._send_report(each))

    async def _send_report(self, report: ContextChanged) -> None:
        await self._send(report)


def _path(uri: str) -> str | None:
    """Return the path of a document; None if it has none, or is of a kind that holds secrets."""
    path = to_fs_path(uri) if uri.startswith("file:") else None
    return path if path and len(path) <= MAX_PATH_CHARS and secret_file(path) is None else None
