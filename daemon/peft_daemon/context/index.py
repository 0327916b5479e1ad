"""The index of a workspace: its files, the names that each defines, and passages found by their words (BM25).

It is built one file at a time, so that its process can do other things between; a file that changed is removed and
added again. It holds words and line numbers, no text: that is read from the file when it is shown. It is bounded in
files and characters; files beyond the bounds are counted and left out.
"""

from __future__ import annotations

import re
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from math import log
from pathlib import Path

import numpy as np

from peft_core.code.files import SkipReason, SourceFile, SourceListing, read_source
from peft_core.code.imports import Signature, find_signatures

MAX_FILES = 20_000
MAX_CHARACTERS = 200_000_000
"""Of all files together; a process that holds as much takes about 1 GB."""
SHORTEST, LONGEST = 4, 12
"""Lines of a passage: it ends at a blank line after the first, and at any line after the second."""
MAX_OUTLINES = 512
"""Kept of the files that were last looked into."""
BM25_K1, BM25_B = 1.2, 0.75
"""The usual parameters of BM25 (Robertson and Zaragoza 2009)."""
COMMON_SHARE = 0.1
"""A word in more than this share of all passages (``self``, ``return``) is ignored, if there are many passages."""
FEW_PASSAGES = 200
"""Up to this many passages no word is ignored, and removed passages are not closed up."""
MAX_WASTE_SHARE = 0.5
"""Share of the passages that may be removed ones before they are closed up."""
_WORD = re.compile(r"[^\W\d_]{2,}")
_DEFINES = re.compile(
    r"^(?:[ \t]{0,4}(?:export |public |pub |static |async )*(?:def|class|function|func|fn|struct|enum|trait|interface"
    r"|type)[ \t]+(\w{3,})|([A-Z][A-Z0-9_]{2,})[ \t]*[:=])",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Passage:
    """Lines of a file, counted from 0, the last not included; and how much they share with what was asked for."""

    path: str
    first: int
    last: int
    score: float


@dataclass(frozen=True)
class _IndexedFile:
    stamp: tuple[int, int]
    """Time of the last change in nanoseconds, and size: what tells that a file is another."""
    characters: int
    names: tuple[str, ...]
    numbers: tuple[int, ...]
    """Of its passages."""


class Index:
    """The files of one workspace."""

    def __init__(self, root: Path) -> None:
        """``root`` is resolved."""
        self.root = root
        self.left_out = 0
        """Files beyond the bounds."""
        self._sources: dict[str, SourceFile] = {}
        self._known: dict[str, _IndexedFile] = {}
        self._definers: dict[str, set[str]] = defaultdict(set)
        self._postings = Postings()
        self._lines: dict[int, tuple[str, int, int]] = {}
        self._characters = 0
        self._outlines: dict[str, tuple[tuple[int, int], tuple[Signature, ...]]] = {}

    @property
    def files(self) -> int:
        """Files that have been read."""
        return len(self._known)

    @property
    def passages(self) -> int:
        """Passages that can be found."""
        return len(self._postings)

    @property
    def paths(self) -> tuple[str, ...]:
        """All files there are, read or not yet, in order."""
        return tuple(self._sources)

    def listed(self, listing: SourceListing) -> Iterator[str]:
        """Take over which files there are; gives the paths that are to be updated, those that are gone among them."""
        kept = listing.files[:MAX_FILES]
        self.left_out = len(listing.files) - len(kept)
        self._sources = {source.path: source for source in kept}
        gone = [path for path in self._known if path not in self._sources]
        return iter([*gone, *(path for path in self._sources if self._changed(path))])

    def update(self, path: str) -> None:
        """Read one file anew; one that is not listed, or no longer counts, is forgotten."""
        self._forget(path)
        source = self._sources.get(path)
        stamp = _stamp(source.file) if source else None
        text = read_source(source) if source and stamp else SkipReason.MISSING
        if stamp is None:
            return
        if isinstance(text, SkipReason):
            self._known[path] = _IndexedFile(stamp, 0, (), ())
            return
        if self._characters + len(text) > MAX_CHARACTERS:
            self.left_out += 1
            return
        numbers = []
        lines = text.split("\n")
        for first, last in cut_passages(lines):
            number = self._postings.add(split_words("\n".join(lines[first:last])))
            self._lines[number] = (path, first, last)
            numbers.append(number)
        names = find_definitions(text)
        for name in names:
            self._definers[name].add(path)
        self._known[path] = _IndexedFile(stamp, len(text), names, tuple(numbers))
        self._characters += len(text)

    def add(self, source: SourceFile) -> None:
        """List one more file, a new one, and read it."""
        if source.path in self._sources or len(self._sources) < MAX_FILES:
            self._sources[source.path] = source
            self.update(source.path)

    def tidy(self) -> None:
        """Give memory back that files which changed have left behind; takes time in proportion to the index."""
        if not self._postings.wasteful:
            return
        moved = self._postings.closed_up()
        self._lines = {moved[number]: place for number, place in self._lines.items()}
        self._known = {
            path: _IndexedFile(one.stamp, one.characters, one.names, tuple(moved[number] for number in one.numbers))
            for path, one in self._known.items()
        }

    def text(self, path: str) -> str:
        """The text of a file as it is now; empty if it cannot be had."""
        source = self._sources.get(path)
        text = read_source(source) if source else ""
        return "" if isinstance(text, SkipReason) else text

    def lines(self, passage: Passage, more: int = 0) -> str:
        """The text of a passage and so many lines behind it; empty if its file is not the one that was read."""
        source, known = self._sources.get(passage.path), self._known.get(passage.path)
        if source is None or known is None or _stamp(source.file) != known.stamp:
            return ""
        return "\n".join(self.text(passage.path).split("\n")[passage.first : passage.last + more]).rstrip()

    def definers(self, name: str) -> frozenset[str]:
        """The files that define a name."""
        return frozenset(self._definers.get(name, ()))

    def outline(self, path: str) -> tuple[Signature, ...]:
        """The signatures of a file as it is now."""
        source = self._sources.get(path)
        stamp = _stamp(source.file) if source else None
        if stamp is None:
            return ()
        found = self._outlines.get(path)
        if found is None or found[0] != stamp:
            if len(self._outlines) >= MAX_OUTLINES:
                del self._outlines[next(iter(self._outlines))]
            found = self._outlines[path] = (stamp, tuple(find_signatures(self.text(path), path)))
        return found[1]

    def neighbours(self, question: Iterable[str], most: int, *, least: int = 1, without: str) -> list[Passage]:
        """The passages most like the question, best first, that share ``least`` words with it; of all files but one."""
        found = []
        own = self._known.get(without)
        extra = len(own.numbers) if own else 0
        for number, score in self._postings.best(question, most + extra, least=least):
            path, first, last = self._lines[number]
            if path != without:
                found.append(Passage(path, first, last, score))
        return found[:most]

    def _changed(self, path: str) -> bool:
        known = self._known.get(path)
        return known is None or _stamp(self._sources[path].file) != known.stamp

    def _forget(self, path: str) -> None:
        known = self._known.pop(path, None)
        if known is None:
            return
        self._characters -= known.characters
        for number in known.numbers:
            self._postings.remove(number)
            del self._lines[number]
        for name in known.names:
            self._definers[name].discard(path)
            if not self._definers[name]:
                del self._definers[name]


def find_definitions(text: str) -> tuple[str, ...]:
    """The functions, types, methods and constants that a text defines, by a quick look."""
    return tuple(dict.fromkeys(one or other for one, other in _DEFINES.findall(text)))


def cut_passages(lines: list[str]) -> Iterator[tuple[int, int]]:
    """Where passages begin and end; together they have every line that is not blank."""
    first = 0
    for row, line in enumerate(lines):
        if not line.strip():
            if row == first:
                first += 1
            elif row - first >= SHORTEST:
                yield first, row
                first = row + 1
        elif row - first >= LONGEST:
            yield first, row
            first = row
    if first < len(lines) and any(line.strip() for line in lines[first:]):
        yield first, len(lines)


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        info = file.lstat()
    except OSError:
        return None
    return info.st_mtime_ns, info.st_size


def split_words(text: str) -> frozenset[str]:
    """Split text into words of two letters or more, in lower case; identifiers are split at underscores."""
    return frozenset(_WORD.findall(text.lower()))


class Postings:
    """An inverted index of passages, ranked by BM25; a passage has a number, which changes when ``closed_up`` says so.

    A passage counts as a set of words: it is a few lines long, so the frequency of a word in it says little.
    """

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
        return len(self._lengths) > FEW_PASSAGES and self._live < (1 - MAX_WASTE_SHARE) * len(self._lengths)

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
        limit = max(FEW_PASSAGES, COMMON_SHARE * self._live)
        for word in sorted(question):
            places = np.array(self._places.get(word, ()), dtype=np.uint32)
            places = places[lengths[places] > 0]
            if 0 < len(places) <= limit:
                scores[places] += log(1 + (self._live - len(places) + 0.5) / (len(places) + 0.5))
                shared[places] += 1
        scores *= (BM25_K1 + 1) / (1 + BM25_K1 * (1 - BM25_B + BM25_B * lengths / (self._words / self._live)))
        scores[shared < least] = 0
        most = min(most, len(scores))
        top = np.argpartition(-scores, most - 1)[:most] if most < len(scores) else np.arange(len(scores))
        ordered = sorted(top.tolist(), key=lambda number: (-scores[number], number))
        return [(number, float(scores[number])) for number in ordered if scores[number] > 0]
