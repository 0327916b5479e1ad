"""The index of a workspace: its files, the names that each defines, and passages found by their words (BM25).

It is built one file at a time, so that its process can answer requests in between. A changed file is removed and added
again. The index holds words and line numbers, but no text, which is read from the file when it is shown. Files beyond
the bounds of files and characters are left out and counted.
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
from numpy.typing import NDArray

from peft_core.code.files import SkipReason, SourceFile, SourceListing, read_source
from peft_core.code.imports import Signature, find_signatures

MAX_FILES = 20_000
MAX_CHARACTERS = 200_000_000
"""Characters of all files together. An index of that size takes about 1 GB of memory."""
MIN_PASSAGE_LINES, MAX_PASSAGE_LINES = 4, 12
"""A passage ends at the first blank line after the minimum, at the latest after the maximum."""
MAX_CACHED_OUTLINES = 512
BM25_K1, BM25_B = 1.2, 0.75
"""The usual parameters of BM25 (Robertson and Zaragoza 2009)."""
MAX_WORD_SHARE = 0.1
"""A word in more than this share of all passages (``self``, ``return``) is ignored, if there are many passages."""
SMALL_INDEX_PASSAGES = 200
"""Up to this many passages, no word is ignored and the index is not compacted."""
MAX_REMOVED_SHARE = 0.5
"""The index is compacted when a larger share of its passages has been removed."""
_WORD = re.compile(r"[^\W\d_]{2,}")
_DEFINES = re.compile(
    r"^(?:[ \t]{0,4}(?:export |public |pub |static |async )*(?:def|class|function|func|fn|struct|enum|trait|interface"
    r"|type)[ \t]+(\w{3,})|([A-Z][A-Z0-9_]{2,})[ \t]*[:=])",
    re.MULTILINE,
)


Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Passage:
    """The lines ``start`` to ``end`` of a file (from 0, ``end`` excluded), and their BM25 score for a query."""

    path: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class _IndexedFile:
    stamp: tuple[int, int]
    """Time of the last change in nanoseconds, and size. A file that has another stamp has changed."""
    characters: int
    names: tuple[str, ...]
    """Names that it defines."""
    passages: tuple[int, ...]
    """Numbers of its passages."""


class Index:
    """The files of one workspace."""

    def __init__(self, root: Path) -> None:
        """``root`` is a path without links."""
        self.root = root
        self.left_out = 0
        """Number of files beyond the bounds."""
        self._sources: dict[str, SourceFile] = {}
        self._indexed: dict[str, _IndexedFile] = {}
        self._paths_by_name: dict[str, set[str]] = defaultdict(set)
        self._postings = Postings()
        self._passage_lines: dict[int, tuple[str, int, int]] = {}
        self._characters = 0
        self._outlines: dict[str, tuple[tuple[int, int], tuple[Signature, ...]]] = {}

    @property
    def files(self) -> int:
        """Number of files that have been read."""
        return len(self._indexed)

    @property
    def passages(self) -> int:
        """Number of passages that can be found."""
        return len(self._postings)

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of all listed files, read or not yet, in order."""
        return tuple(self._sources)

    def set_listing(self, listing: SourceListing) -> list[str]:
        """Replace the list of files; returns the paths to ``update``, those of removed files among them."""
        kept = listing.files[:MAX_FILES]
        self.left_out = len(listing.files) - len(kept)
        self._sources = {source.path: source for source in kept}
        removed = [path for path in self._indexed if path not in self._sources]
        return [*removed, *(path for path in self._sources if self._changed(path))]

    def update(self, path: str) -> None:
        """Read one file again; a file that is not listed or is no longer source code is removed from the index."""
        self._forget(path)
        source = self._sources.get(path)
        stamp = _stamp(source.file) if source else None
        text = read_source(source) if source and stamp else SkipReason.MISSING
        if stamp is None:
            return
        if isinstance(text, SkipReason):
            self._indexed[path] = _IndexedFile(stamp, 0, (), ())
            return
        if self._characters + len(text) > MAX_CHARACTERS:
            self.left_out += 1
            return
        numbers = []
        lines = text.split("\n")
        for start, end in split_passages(lines):
            number = self._postings.add(split_words("\n".join(lines[start:end])))
            self._passage_lines[number] = (path, start, end)
            numbers.append(number)
        names = find_definitions(text)
        for name in names:
            self._paths_by_name[name].add(path)
        self._indexed[path] = _IndexedFile(stamp, len(text), names, tuple(numbers))
        self._characters += len(text)

    def add(self, source: SourceFile) -> None:
        """Add a file to the list and read it."""
        if source.path in self._sources or len(self._sources) < MAX_FILES:
            self._sources[source.path] = source
            self.update(source.path)

    def compact(self) -> None:
        """Free the memory of removed passages, if it is worth it; takes time in proportion to the index."""
        if not self._postings.needs_compaction:
            return
        moved = self._postings.compact()
        self._passage_lines = {moved[number]: lines for number, lines in self._passage_lines.items()}
        self._indexed = {
            path: _IndexedFile(one.stamp, one.characters, one.names, tuple(moved[number] for number in one.passages))
            for path, one in self._indexed.items()
        }

    def text(self, path: str) -> str:
        """Return the text of a file as it is now; empty if it cannot be read."""
        source = self._sources.get(path)
        text = read_source(source) if source else ""
        return "" if isinstance(text, SkipReason) else text

    def passage_text(self, passage: Passage, extra_lines: int = 0) -> str:
        """Return the text of a passage and ``extra_lines`` after it; empty if its file changed since it was read."""
        source, indexed = self._sources.get(passage.path), self._indexed.get(passage.path)
        if source is None or indexed is None or _stamp(source.file) != indexed.stamp:
            return ""
        return "\n".join(self.text(passage.path).split("\n")[passage.start : passage.end + extra_lines]).rstrip()

    def files_defining(self, name: str) -> frozenset[str]:
        """Return the paths of the files that define ``name``."""
        return frozenset(self._paths_by_name.get(name, ()))

    def outline(self, path: str) -> tuple[Signature, ...]:
        """Return the signatures of a file as it is now."""
        source = self._sources.get(path)
        stamp = _stamp(source.file) if source else None
        if stamp is None:
            return ()
        found = self._outlines.get(path)
        if found is None or found[0] != stamp:
            if len(self._outlines) >= MAX_CACHED_OUTLINES:
                del self._outlines[next(iter(self._outlines))]
            found = self._outlines[path] = (stamp, tuple(find_signatures(self.text(path), path)))
        return found[1]

    def search(self, query_words: Iterable[str], limit: int, *, min_shared: int = 1, exclude: str) -> list[Passage]:
        """Return up to ``limit`` passages, best first, that share ``min_shared`` words with the query.

        ``exclude`` is the path of a file whose passages are not returned.
        """
        found = []
        excluded = self._indexed.get(exclude)
        extra = len(excluded.passages) if excluded else 0
        for number, score in self._postings.search(query_words, limit + extra, min_shared=min_shared):
            path, start, end = self._passage_lines[number]
            if path != exclude:
                found.append(Passage(path, start, end, score))
        return found[:limit]

    def score(self, query_words: Iterable[str], passages: Iterable[frozenset[str]], *, min_shared: int) -> list[float]:
        """Return the scores that ``search`` would give to passages of these words; 0 with too few shared words."""
        return self._postings.score(query_words, passages, min_shared=min_shared)

    def _changed(self, path: str) -> bool:
        indexed = self._indexed.get(path)
        return indexed is None or _stamp(self._sources[path].file) != indexed.stamp

    def _forget(self, path: str) -> None:
        indexed = self._indexed.pop(path, None)
        if indexed is None:
            return
        self._characters -= indexed.characters
        for number in indexed.passages:
            self._postings.remove(number)
            del self._passage_lines[number]
        for name in indexed.names:
            self._paths_by_name[name].discard(path)
            if not self._paths_by_name[name]:
                del self._paths_by_name[name]


def find_definitions(text: str) -> tuple[str, ...]:
    """Return the functions, types, methods and constants that a text defines, found by a regular expression."""
    return tuple(dict.fromkeys(one or other for one, other in _DEFINES.findall(text)))


def split_passages(lines: list[str]) -> Iterator[tuple[int, int]]:
    """Yield start and end (excluded) of each passage; together they have every line that is not blank."""
    start = 0
    for row, line in enumerate(lines):
        if not line.strip():
            if row == start:
                start += 1
            elif row - start >= MIN_PASSAGE_LINES:
                yield start, row
                start = row + 1
        elif row - start >= MAX_PASSAGE_LINES:
            yield start, row
            start = row
    if start < len(lines) and any(line.strip() for line in lines[start:]):
        yield start, len(lines)


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
    """An inverted index of passages, ranked by BM25; each passage has a number, which ``compact`` may change.

    A passage counts as a set of words: it is a few lines long, so the frequency of a word in it says little.
    """

    def __init__(self) -> None:
        self._numbers_by_word: dict[str, array[int]] = {}
        self._lengths: array[int] = array("H")
        """Number of words of each passage; 0 for a removed one."""
        self._live = self._words = 0

    def __len__(self) -> int:
        """Return the number of passages that can be found."""
        return self._live

    def add(self, passage: Collection[str]) -> int:
        """Add a passage, given by its words; returns its number."""
        number = len(self._lengths)
        for word in passage:
            if (numbers := self._numbers_by_word.get(word)) is None:
                numbers = self._numbers_by_word[word] = array("I")
            numbers.append(number)
        self._lengths.append(max(1, min(len(passage), 0xFFFF)))
        self._live += 1
        self._words += self._lengths[number]
        return number

    def remove(self, number: int) -> None:
        """Remove a passage; does nothing if it is removed already."""
        if self._lengths[number]:
            self._live -= 1
            self._words -= self._lengths[number]
            self._lengths[number] = 0

    @property
    def needs_compaction(self) -> bool:
        """Whether enough passages were removed that ``compact`` is worth its time."""
        return len(self._lengths) > SMALL_INDEX_PASSAGES and self._live < (1 - MAX_REMOVED_SHARE) * len(self._lengths)

    def compact(self) -> dict[int, int]:
        """Free the memory of removed passages; returns the new number of each passage by its old one."""
        lengths = np.array(self._lengths, dtype=np.uint16)
        alive = lengths > 0
        renumbered = np.cumsum(alive, dtype=np.uint32) - 1
        for word in list(self._numbers_by_word):
            old = np.array(self._numbers_by_word[word], dtype=np.uint32)
            kept = renumbered[old[alive[old]]]
            if len(kept):
                self._numbers_by_word[word] = array("I", kept.astype(np.uint32).tobytes())
            else:
                del self._numbers_by_word[word]
        self._lengths = array("H", lengths[alive].tobytes())
        return {int(old): int(renumbered[old]) for old in np.flatnonzero(alive)}

    def search(self, query_words: Iterable[str], limit: int, *, min_shared: int = 1) -> list[tuple[int, float]]:
        """Return number and score of up to ``limit`` passages, best first; with equal scores the older one first.

        A passage must share ``min_shared`` words with the query. Words that are in too many passages do not count.
        """
        if not self._live:
            return []
        lengths = np.array(self._lengths, dtype=np.float32)
        scores = np.zeros(len(lengths), dtype=np.float32)
        shared = np.zeros(len(lengths), dtype=np.uint16)
        for word in sorted(query_words):
            numbers = self._live_numbers(word, lengths)
            if len(numbers) and (weight := self._weight(len(numbers))):
                scores[numbers] += weight
                shared[numbers] += 1
        scores *= self._length_factor(lengths)
        scores[shared < min_shared] = 0
        limit = min(limit, len(scores))
        top = np.argpartition(-scores, limit - 1)[:limit] if limit < len(scores) else np.arange(len(scores))
        ordered = sorted(top.tolist(), key=lambda number: (-scores[number], number))
        return [(number, float(scores[number])) for number in ordered if scores[number] > 0]

    def score(self, query_words: Iterable[str], passages: Iterable[frozenset[str]], *, min_shared: int) -> list[float]:
        """Return the scores of passages that are not in it, given by their words."""
        lengths = np.array(self._lengths, dtype=np.float32)
        weights = {word: self._weight(len(self._live_numbers(word, lengths))) for word in query_words}
        found = []
        for passage in passages:
            shared = [weight for word in passage if (weight := weights.get(word, 0.0))]
            enough = len(shared) >= min_shared
            found.append(sum(shared) * float(self._length_factor(len(passage))) if enough else 0.0)
        return found

    def _live_numbers(self, word: str, lengths: Floats) -> NDArray[np.uint32]:
        numbers = np.array(self._numbers_by_word.get(word, ()), dtype=np.uint32)
        return numbers[lengths[numbers] > 0]

    def _weight(self, passages: int) -> float:
        """Return what a word counts that so many passages have; 0 if they are too many."""
        if passages > max(SMALL_INDEX_PASSAGES, MAX_WORD_SHARE * self._live):
            return 0.0
        return log(1 + (self._live - passages + 0.5) / (passages + 0.5))

    def _length_factor(self, words: Floats | int) -> Floats | float:
        """Return what a score is multiplied with for the length of a passage."""
        usual = self._words / self._live if self._live else 1.0
        return (BM25_K1 + 1) / (1 + BM25_K1 * (1 - BM25_B + BM25_B * words / usual))
