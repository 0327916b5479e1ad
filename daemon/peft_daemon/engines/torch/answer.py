"""The text of one answer, made from tokens: whole characters only, and nothing at or after a stop string."""

from __future__ import annotations

import codecs
from collections import deque

from peft_daemon.engines.base import TokenLogprob

Part = tuple[str, tuple[TokenLogprob, ...]]


class AnswerText:
    """Gives out text as soon as no stop string can begin in it any more."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._given = 0
        """Characters given out."""
        self._logprobs: deque[tuple[int, TokenLogprob]] = deque()
        """Of tokens not given out yet, each with the position at which it begins."""
        self.stopped = False

    def add(self, text: bytes, logprob: TokenLogprob | None = None) -> Part:
        """Take one more token; returns what is certain now. ``stopped`` says whether a stop string was met."""
        if logprob is not None:
            self._logprobs.append((self._given + len(self._held), logprob))
        self._held += self._decoder.decode(text)
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._give(min(found))
        return self._give(len(self._held) - self._undecided())

    def rest(self) -> Part:
        """What was held back, once nothing follows; half a character is dropped."""
        return ("", ()) if self.stopped else self._give(len(self._held))

    def _undecided(self) -> int:
        """Length of the longest end of the text that a stop string begins with."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        lengths = range(min(longest, len(self._held)), 0, -1)
        return next((n for n in lengths if any(stop.startswith(self._held[-n:]) for stop in self._stops)), 0)

    def _give(self, count: int) -> Part:
        text, self._held = self._held[:count], self._held[count:]
        self._given += count
        known = []
        while text and self._logprobs and self._logprobs[0][0] < self._given:
            known.append(self._logprobs.popleft()[1])
        return text, tuple(known)
