"""The answer of a server as it comes: stop strings, timings measured here, and why it ended."""

from __future__ import annotations

import time
from collections.abc import Sequence

from peft_core.api_types import FinishReason, Timings
from peft_daemon.engines.base import GenerationChunk, GenerationRequest
from peft_daemon.engines.upstream.protocols import ServerEvent


class StreamedAnswer:
    """Turns the events of one stream into chunks.

    Stop strings are looked for here as well: some servers take few, and some none that holds a control token.
    """

    def __init__(self, request: GenerationRequest, started: float) -> None:
        self._request, self._started = request, started
        self._text = StopFilter(request.stop)
        self._first_at = 0.0
        self._read = self._reused = self._written = 0
        self.prompt_tokens = 0
        """As counted or estimated here, until the server says how many it read."""
        self.reason: FinishReason | None = None
        """Why the server ended it, or a stop string here; None while neither has."""

    @property
    def over(self) -> bool:
        """Whether nothing that follows is wanted."""
        return self._text.stopped or (not self._request.max_tokens and bool(self._first_at))

    def add(self, event: ServerEvent) -> GenerationChunk | None:
        """Return the chunk that an event makes; None for one that says nothing new."""
        self._note(event)
        if not self._request.max_tokens:
            if self._first_at:
                self.reason = FinishReason.LENGTH
            return GenerationChunk(timings=self.timings())
        piece = self._text.add(event.text)
        if self._text.stopped:
            self.reason = FinishReason.STOP
        if piece or event.logprobs:
            return GenerationChunk(piece, event.logprobs, self.timings())
        return None if self._first_at else GenerationChunk(timings=self.timings())

    def rest(self) -> str:
        """Return the text that was held back because a stop string could have begun there."""
        return self._text.rest() if self._request.max_tokens else ""

    def end(self, reason: FinishReason) -> GenerationChunk:
        """Return the last chunk."""
        if not self._request.max_tokens:
            # A server that writes a token in any case was asked for one.
            self._written = 0
            reason = FinishReason.TIMEOUT if reason is FinishReason.TIMEOUT else FinishReason.LENGTH
        return GenerationChunk(reason=reason, timings=self.timings())

    def timings(self) -> Timings:
        """Return counts as the server tells them, and times as measured here, with the network's share."""
        now = time.perf_counter()
        first = self._first_at
        reused = min(self._reused, self.prompt_tokens)
        return Timings(
            prompt_tokens=self.prompt_tokens,
            prompt_evaluated=self._read,
            prompt_reused=reused,
            prompt_ms=1000 * ((first or now) - self._started),
            first_token_ms=1000 * (first - self._started) if first else 0.0,
            decode_tokens=self._written,
            decode_ms=1000 * (now - first) if first else 0.0,
            engine_ms=1000 * (now - self._started),
        )

    def _note(self, event: ServerEvent) -> None:
        if event.prompt_read is not None:
            self._read = event.prompt_read
        if event.prompt_reused is not None:
            self._reused = event.prompt_reused
        began = bool(event.text or event.logprobs or event.written or event.reason)
        if began and not self._first_at:
            self._first_at = time.perf_counter()
            if not self._read:
                self._read = self.prompt_tokens - self._reused
        if event.prompt_read is not None and began:
            self.prompt_tokens = self._read + self._reused
        if event.written is not None:
            self._written = event.written
        elif event.text:
            self._written += 1
        if event.reason is not None:
            self.reason = event.reason


class StopFilter:
    """Cuts a growing text before the first of the ``stops`` in it, and holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False
        """Whether a stop string was found; nothing follows."""

    def add(self, text: str) -> str:
        """Return what is certain to belong to the answer now."""
        if self.stopped:
            return ""
        text, self._held = self._held + text, ""
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        if keep:
            text, self._held = text[:-keep], text[-keep:]
        return text

    def rest(self) -> str:
        """Return what was held back, at the end of the text."""
        held, self._held = self._held, ""
        return "" if self.stopped else held


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of ``text`` are the beginning of ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
