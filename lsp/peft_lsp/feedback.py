"""Reports of the outcome of each suggestion to the daemon, which keeps them on this machine.

Each open document has a ``SuggestionTracker``, which is given the time here. When a document is closed or the server
ends, its suggestions are settled at once. Records that the daemon does not accept are lost. Items of the completion
list are not tracked, as it is not known which of a list's items the user looked at.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from peft_core.api_types import LONGEST_SUGGESTION, LONGEST_WINDOW, FeedbackRequest, Outcome
from peft_core.tasks import BackgroundTasks
from peft_lsp.documents import (
    MAX_LANGUAGE_CHARS,
    ContentChange,
    DocumentSnapshot,
    OpenDocument,
    OpenDocuments,
    normalize_line_ends,
)
from peft_lsp.suggestion_tracker import SettledSuggestion, SuggestionTracker, TrackedSuggestion

if TYPE_CHECKING:
    from peft_core.api_types import CompleteResponse
    from peft_lsp.daemon_connection import DaemonConnection

MAX_SETTLE_S = 2.0
"""How long a server that ends waits for the daemon to accept the last records."""
MIN_MATCH_CHARS = 3
"""Shortest sequence of equal characters that counts: single letters are in any two texts."""
MAX_CHARS_COMPARED = 2000
"""Longer texts are compared line by line, not character by character."""


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SuggestionContext:
    """A suggestion as it is shown, with the request and the answer it came from."""

    snapshot: DocumentSnapshot
    begun: str
    """The part of the text that is before the cursor already: the beginning of a list's selected item."""
    text: str
    """The whole text, ``begun`` included."""
    response: CompleteResponse
    latency_ms: float
    kept: Literal["counts", "text", "off"] | bool | None = None
    """The editor's setting ``feedback`` for its document."""
    next_edit: bool = False
    """It changes lines that exist, wherever the cursor is."""


class FeedbackReporter:
    """Tracks the suggestions of all open documents and reports their outcomes."""

    def __init__(self, documents: OpenDocuments, daemon: DaemonConnection) -> None:
        self._documents, self._daemon = documents, daemon
        self._trackers: dict[str, SuggestionTracker] = {}
        self._contexts: dict[str, SuggestionContext] = {}
        self._alternatives: dict[str, tuple[str, SuggestionContext]] = {}
        """What was offered with the suggestion that was shown last: by id, that one's id, and its own context."""
        self._alarm: asyncio.TimerHandle | None = None
        self._sending = BackgroundTasks(log, "feedback could not be sent")

    @property
    def tracked_ids(self) -> set[str]:
        """The ids of all suggestions that are still tracked."""
        return set(self._contexts)

    def show(self, context: SuggestionContext) -> str:
        """Track a suggestion that is about to be shown; return the id with which the editor reports acceptance."""
        suggestion = _tracked(context)
        self._contexts[suggestion.id] = context
        self._alternatives.clear()
        tracker = self._trackers.setdefault(context.snapshot.uri, SuggestionTracker())
        shown = tracker.show(suggestion, time.monotonic())
        self._schedule()
        return shown

    def offer(self, shown: str, alternative: SuggestionContext) -> str:
        """Note what the editor can show in place of the suggestion ``shown``; return its id."""
        id_ = alternative.response.id
        self._alternatives[id_] = (shown, alternative)
        return id_

    def dismiss(self, uri: str) -> None:
        """Note that the user refused what is shown in a document."""
        if (tracker := self._trackers.get(uri)) is not None:
            tracker.dismiss(time.monotonic())
            self._schedule()

    def document_changed(self, uri: str, changes: Iterable[ContentChange]) -> None:
        """Follow the suggestions of a document through its changes."""
        if (tracker := self._trackers.get(uri)) is not None:
            tracker.edited(changes, time.monotonic())
            self._schedule()

    def accept(self, id_: str) -> None:
        """Note that the editor inserted a suggestion; unknown ones are ignored."""
        if (alternative := self._alternatives.pop(id_, None)) is not None:
            shown, context = alternative
            self._contexts[id_] = context
            tracker = self._trackers.setdefault(context.snapshot.uri, SuggestionTracker())
            tracker.replace(shown, _tracked(context), time.monotonic())
        for tracker in self._trackers.values():
            if tracker.accept(id_, time.monotonic()):
                break
        self._schedule()

    def document_closing(self, uri: str) -> None:
        """Settle the suggestions of a document with its present text, before it is closed."""
        if (tracker := self._trackers.pop(uri, None)) is not None:
            self._report(uri, tracker.close(time.monotonic()))
            self._schedule()

    async def close(self) -> None:
        """Settle all suggestions, and wait up to ``MAX_SETTLE_S`` until the daemon has the records."""
        for uri in list(self._trackers):
            self.document_closing(uri)
        if self._alarm is not None:
            self._alarm.cancel()
        await self._sending.wait(MAX_SETTLE_S)

    def _report_due(self) -> None:
        self._alarm = None
        for uri, tracker in self._trackers.items():
            self._report(uri, tracker.take_due(time.monotonic()))
        self._schedule()

    def _schedule(self) -> None:
        """Forget settled suggestions, and wake up when the next one is due."""
        self._trackers = {uri: each for uri, each in self._trackers.items() if each.pending or each.settled}
        known = {one for each in self._trackers.values() for one in each.ids}
        self._contexts = {id_: one for id_, one in self._contexts.items() if id_ in known}
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        times = [when for each in self._trackers.values() if (when := each.next_due) is not None]
        if times:
            delay = max(min(times) - time.monotonic(), 0)
            self._alarm = asyncio.get_running_loop().call_later(delay, self._report_due)

    def _report(self, uri: str, settled_ones: Sequence[SettledSuggestion]) -> None:
        document = self._documents.get(uri)
        for settled in settled_ones:
            context = self._contexts.get(settled.suggestion.id)
            if context is not None:
                self._sending.spawn(self._daemon.record(feedback_record(settled, context, document)))


def _tracked(context: SuggestionContext) -> TrackedSuggestion:
    snapshot = context.snapshot
    return TrackedSuggestion(
        id=context.response.id,
        start=(snapshot.line, snapshot.offset - len(context.begun)),
        text=normalize_line_ends(context.text),
        typed=len(context.begun),
        over=snapshot.replaced(context.response.replace_after),
    )


def feedback_record(
    settled: SettledSuggestion, context: SuggestionContext, document: OpenDocument | None
) -> FeedbackRequest:
    """Make the daemon's record of a suggestion; texts are cut to the lengths that it accepts."""
    snapshot, response, suggestion = context.snapshot, context.response, settled.suggestion
    now = kept = None
    if document is not None and settled.outcome is not Outcome.REJECTED:
        now = normalize_line_ends(document.between(settled.begin, settled.end))[:LONGEST_SUGGESTION]
        kept = count_kept_characters(settled.text, now)
    prefix = snapshot.prefix[: len(snapshot.prefix) - len(context.begun)]
    record = FeedbackRequest(
        offer=suggestion.id,
        outcome=settled.outcome,
        language=snapshot.language[:MAX_LANGUAGE_CHARS],
        path=snapshot.path,
        prefix=last_lines(prefix),
        suffix=snapshot.suffix[:LONGEST_WINDOW],
        replaced=len(suggestion.over),
        suggestion=suggestion.text[:LONGEST_SUGGESTION],
        shown=suggestion.shown,
        accepted=settled.accepted,
        stood=len(settled.text),
        kept=kept,
        now=now,
        model=response.model,
        adapter=response.adapter,
        confidence=response.confidence,
        latency_ms=round(context.latency_ms),
        text_agreed=context.kept == "text",
        next_edit=context.next_edit,
    )
    return record.counts() if context.kept == "counts" else record


def last_lines(text: str) -> str:
    """Cut a text to the length that the daemon accepts: its end, from the start of a line on."""
    if len(text) <= LONGEST_WINDOW:
        return text
    return text[-LONGEST_WINDOW:].partition("\n")[2]


def count_kept_characters(before: str, now: str) -> int:
    """Count the characters of ``before`` that are still in ``now``, in the same order."""
    if before in now:
        return len(before)
    if max(len(before), len(now)) > MAX_CHARS_COMPARED:
        return _count_matching(before.splitlines(keepends=True), now.splitlines(keepends=True), min_length=1)
    return _count_matching(list(before), list(now), min_length=min(MIN_MATCH_CHARS, len(before)))


def _count_matching(before: Sequence[str], now: Sequence[str], *, min_length: int) -> int:
    ends = [0, *accumulate(map(len, before))]
    blocks = SequenceMatcher(None, before, now, autojunk=False).get_matching_blocks()
    return sum(ends[block.a + block.size] - ends[block.a] for block in blocks if block.size >= min_length)
