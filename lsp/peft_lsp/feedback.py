"""What became of the ghost text of this editor, told to the daemon, which keeps it on this machine.

Follows the offers of each open document (``offers``) with a clock; a document that is closed and a server that ends
settle what is left at once. Records that the daemon does not take are lost: they are not worth waiting for. Items of
the completion list are not followed: a list does not tell which of its items was looked at.
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
from peft_lsp.documents import ContentChange, DocumentSnapshot, OpenDocument, OpenDocuments, normalize_line_ends
from peft_lsp.suggestion_tracker import SettledSuggestion, ShownSuggestion, SuggestionTracker

if TYPE_CHECKING:
    from peft_core.api_types import CompleteResponse
    from peft_lsp.daemon_connection import DaemonConnection

MAX_SETTLE_S = 2.0
"""How long a server that ends waits until the daemon has what was left."""


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SuggestionContext:
    """What an offer shows, and what it came from."""

    snapshot: DocumentSnapshot
    begun: str
    """What stood before the cursor of the text already: the beginning of a list's choice."""
    text: str
    """The whole text, ``begun`` included."""
    response: CompleteResponse
    latency_ms: float
    kept: Literal["counts", "text", "off"] | bool | None = None
    """The editor's setting ``feedback`` for its document."""


class FeedbackReporter:
    """The offers of all open documents."""

    def __init__(self, documents: OpenDocuments, daemon: DaemonConnection) -> None:
        self._documents, self._daemon = documents, daemon
        self._offers: dict[str, SuggestionTracker] = {}
        self._suggestions: dict[str, SuggestionContext] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._sending = BackgroundTasks(log, "feedback could not be sent")

    def show(self, suggestion: SuggestionContext) -> str:
        """A suggestion is about to be shown; returns the id by which the editor may say that it took it."""
        snapshot, replaced = suggestion.snapshot, suggestion.response.replace_after
        offer = ShownSuggestion(
            id=suggestion.response.id,
            start=(snapshot.line, snapshot.offset - len(suggestion.begun)),
            text=normalize_line_ends(suggestion.text),
            typed=len(suggestion.begun),
            over=snapshot.suffix[:replaced],
        )
        self._suggestions[offer.id] = suggestion
        offers = self._offers.setdefault(snapshot.uri, SuggestionTracker())
        shown = offers.show(offer, time.monotonic())
        self._tidy()
        return shown

    def edited(self, uri: str, edits: Iterable[ContentChange]) -> None:
        """A document was edited."""
        if (offers := self._offers.get(uri)) is not None:
            offers.edited(edits, time.monotonic())
            self._tidy()

    def took(self, id_: str) -> None:
        """The editor inserted a suggestion; unknown ones are ignored."""
        for offers in self._offers.values():
            if offers.took(id_, time.monotonic()):
                break
        self._tidy()

    def close(self, uri: str) -> None:
        """A document is about to be closed: what is left of its offers is settled as it stands there now."""
        if (offers := self._offers.pop(uri, None)) is not None:
            self._tell(uri, offers.close(time.monotonic()))
            self._tidy()

    async def leave(self) -> None:
        """Settle everything, and wait a moment until the daemon has it."""
        for uri in list(self._offers):
            self.close(uri)
        if self._alarm is not None:
            self._alarm.cancel()
        if self._sending:
            await asyncio.wait(self._sending, timeout=MAX_SETTLE_S)

    def _look(self) -> None:
        self._alarm = None
        for uri, offers in self._offers.items():
            self._tell(uri, offers.due(time.monotonic()))
        self._tidy()

    def _tidy(self) -> None:
        """Forget what is settled, and wake up when the next offer is due."""
        self._offers = {uri: each for uri, each in self._offers.items() if each.live or each.settled}
        known = {one for each in self._offers.values() for one in each.ids}
        self._suggestions = {id_: one for id_, one in self._suggestions.items() if id_ in known}
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        times = [when for each in self._offers.values() if (when := each.next_due) is not None]
        if times:
            delay = max(min(times) - time.monotonic(), 0)
            self._alarm = asyncio.get_running_loop().call_later(delay, self._look)

    def _tell(self, uri: str, ended: Sequence[SettledSuggestion]) -> None:
        document = self._documents.get(uri)
        for settled in ended:
            suggestion = self._suggestions.get(settled.offer.id)
            if suggestion is not None:
                task = asyncio.create_task(self._daemon.record(feedback_record(settled, suggestion, document)))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)


def feedback_record(
    settled: SettledSuggestion, suggestion: SuggestionContext, document: OpenDocument | None
) -> FeedbackRequest:
    """What the daemon is told; all texts are cut to what it takes."""
    snapshot, response, offer = suggestion.snapshot, suggestion.response, settled.offer
    now = kept = None
    if document is not None and settled.outcome is not Outcome.REJECTED:
        now = normalize_line_ends(document.between(settled.begin, settled.end))[:LONGEST_SUGGESTION]
        kept = count_kept_characters(settled.text, now)
    prefix = snapshot.prefix[: len(snapshot.prefix) - len(suggestion.begun)]
    record = FeedbackRequest(
        offer=offer.id,
        outcome=settled.outcome,
        language=snapshot.language[:200],
        path=snapshot.path,
        prefix=last_lines(prefix),
        suffix=snapshot.suffix[:LONGEST_WINDOW],
        replaced=len(offer.over),
        suggestion=offer.text[:LONGEST_SUGGESTION],
        shown=offer.shown,
        accepted=settled.accepted,
        stood=len(settled.text),
        kept=kept,
        now=now,
        model=response.model,
        adapter=response.adapter,
        latency_ms=round(suggestion.latency_ms),
        text_agreed=suggestion.kept == "text",
    )
    return record.counts() if suggestion.kept == "counts" else record


def last_lines(text: str) -> str:
    """The end of a text, from the start of a line on, where it is longer than the daemon takes."""
    if len(text) <= LONGEST_WINDOW:
        return text
    return text[-LONGEST_WINDOW:].partition("\n")[2]


# How much of an accepted text is still there: characters in stretches that both texts have in the same order.

MIN_STRETCH_CHARS = 3
"""Characters of a stretch that counts: single letters are alike in any two texts."""
MAX_CHARS_COMPARED = 2000
"""Characters that are compared one by one; longer texts are compared line by line."""


def count_kept_characters(before: str, now: str) -> int:
    """How many characters of ``before`` are found in ``now``; all of them if it holds ``before`` as a whole."""
    if before in now:
        return len(before)
    if max(len(before), len(now)) > MAX_CHARS_COMPARED:
        return _count_matching(before.splitlines(keepends=True), now.splitlines(keepends=True), least=1)
    return _count_matching(list(before), list(now), least=min(MIN_STRETCH_CHARS, len(before)))


def _count_matching(before: Sequence[str], now: Sequence[str], *, least: int) -> int:
    ends = [0, *accumulate(map(len, before))]
    blocks = SequenceMatcher(None, before, now, autojunk=False).get_matching_blocks()
    return sum(ends[block.a + block.size] - ends[block.a] for block in blocks if block.size >= least)
