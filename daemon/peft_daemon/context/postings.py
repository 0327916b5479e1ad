"""Passages found by the words they share with a question: BM25 (Robertson and Zaragoza 2009), in an index that changes.

A passage is a set of words: it is a few lines long, so how often a word stands in it says little. Passages can be
taken out again; their places are reused when enough of them are gone. Does not know what a passage is.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Iterable
from math import log

import numpy as np

K1, B = 1.2, 0.75
"""The usual ones."""
COMMON = 0.1
"""A word in more than this part of all passages (``self``, ``return``) says nothing ..."""
FEW = 200
"""... unless there are few passages."""
WASTE = 0.5
"""Part of the places that may be empty before they are closed up."""
_WORD = re.compile(r"[^\W\d_]{2,}")


def words(text: str) -> frozenset[str]:
    """What is compared: words of two letters or more, in lower case; identifiers fall apart at underscores."""
    return frozenset(_WORD.findall(text.lower()))


class Postings:
    """An inverted index. A passage is known by a number, which changes when ``closed_up`` says so."""

    def __init__(self) -> None:
        self._places: dict[str, array[int]] = {}
        self._lengths: array[int] = array("H")
        """Words of each passage; 0 for one that is gone."""
        self._live = self._words = 0

    def __len__(self) -> int:
        """Passages that can be found."""
        return self._live

    def add(self, passage: Collection[str]) -> int:
        """Take in a passage by its words; its number."""
        number = len(self._lengths)
        for word in passage:
            if (places := self._places.get(word)) is None:
                places = self._places[word] = array("I")
            places.append(number)
        self._lengths.append(max(1, min(len(passage), 0xFFFF)))
        self._live += 1
        self._words += self._lengths[number]
        return number

    def remove(self, number: int) -> None:
        """Let a passage no longer be found; a second time does nothing."""
        if self._lengths[number]:
            self._live -= 1
            self._words -= self._lengths[number]
            self._lengths[number] = 0

    @property
    def wasteful(self) -> bool:
        """Whether closing up is worth the time it takes."""
        return len(self._lengths) > FEW and self._live < (1 - WASTE) * len(self._lengths)

    def closed_up(self) -> dict[int, int]:
        """Take what was removed out of memory; the new number of each passage by its old one."""
        lengths = np.array(self._lengths, dtype=np.uint16)
        alive = lengths > 0
        renumbered = np.cumsum(alive, dtype=np.uint32) - 1
        for word in list(self._places):
            old = np.array(self._places[word], dtype=np.uint32)
            kept = renumbered[old[alive[old]]]
            if len(kept):
                self._places[word] = array("I", kept.astype(np.uint32).tobytes())
            else:
                del self._places[word]
        self._lengths = array("H", lengths[alive].tobytes())
        return {int(old): int(renumbered[old]) for old in np.flatnonzero(alive)}

    def best(self, question: Iterable[str], most: int, *, least: int = 1) -> list[tuple[int, float]]:
        """The passages that share most with the question, best first, of equals the older.

        Those that share fewer than ``least`` words, such as are not in all of them, are none of them.
        """
        if not self._live:
            return []
        lengths = np.array(self._lengths, dtype=np.float32)
        scores = np.zeros(len(lengths), dtype=np.float32)
        shared = np.zeros(len(lengths), dtype=np.uint16)
        limit = max(FEW, COMMON * self._live)
        for word in sorted(question):
            places = np.array(self._places.get(word, ()), dtype=np.uint32)
            places = places[lengths[places] > 0]
            if 0 < len(places) <= limit:
                scores[places] += log(1 + (self._live - len(places) + 0.5) / (len(places) + 0.5))
                shared[places] += 1
        scores *= (K1 + 1) / (1 + K1 * (1 - B + B * lengths / (self._words / self._live)))
        scores[shared < least] = 0
        most = min(most, len(scores))
        top = np.argpartition(-scores, most - 1)[:most] if most < len(scores) else np.arange(len(scores))
        ordered = sorted(top.tolist(), key=lambda number: (-scores[number], number))
        return [(number, float(scores[number])) for number in ordered if scores[number] > 0]
