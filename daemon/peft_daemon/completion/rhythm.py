"""How fast somebody types, and whether a keystroke is worth starting the model for before the next one comes.

Starting at once costs nothing when the next key agrees with the answer, which is then joined. But an answer that
cannot have a word by the next key is only in its way: stopping it takes the engine some time.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

BURST_S = 0.6
"""A longer gap between two keys is a pause, not a part of the rhythm."""
WEIGHT = 0.3
"""Of the newest gap, or answer, in the running mean."""
LONGEST_PAUSE_S = 0.15
DOCUMENTS = 64


@dataclass
class _Typing:
    last: float
    gap_s: float | None = None


class Rhythm:
    """The typing in each document, and the engine's speed at answering it."""

    def __init__(self) -> None:
        self._typing: OrderedDict[str, _Typing] = OrderedDict()
        self._first_word_s = 0.0

    def key(self, document: str, now: float | None = None) -> None:
        """A keystroke's request came."""
        now = time.monotonic() if now is None else now
        typing = self._typing.pop(document, None) or _Typing(now)
        self._typing[document] = typing
        if len(self._typing) > DOCUMENTS:
            self._typing.popitem(last=False)
        gap = now - typing.last
        typing.last = now
        if 0 < gap <= BURST_S:
            typing.gap_s = gap if typing.gap_s is None else (1 - WEIGHT) * typing.gap_s + WEIGHT * gap
        elif gap > BURST_S:
            typing.gap_s = None

    def answered(self, first_token_ms: float, token_ms: float) -> None:
        """The engine answered a keystroke: when its first token came, and how long each takes."""
        first_word_s = (first_token_ms + token_ms) / 1000
        self._first_word_s += (WEIGHT if self._first_word_s else 1.0) * (first_word_s - self._first_word_s)

    def pause_s(self, document: str) -> float:
        """Seconds to wait for another key before the model is asked: none where it would be fast enough."""
        typing = self._typing.get(document)
        if typing is None or typing.gap_s is None or typing.gap_s >= self._first_word_s:
            return 0.0
        return min(typing.gap_s, LONGEST_PAUSE_S)
