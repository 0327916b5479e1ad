"""Filters for code that is learned from: lines that hold a secret, and files or functions that occur twice.

A secret is a password, token or key that a detector of detect-secrets finds, or that completion masks. Its line is
emptied right after reading, before anything else uses the text, so that no middle, prefix, suffix, sentence or chunk
of another file can contain it. Holes that touch an emptied line are not cut (``SourceFilter``). Lines that the author
allowed (``pragma: allowlist secret``) stay. All detectors run with their default limits and filters, which find too
many rather than too few. Nothing is verified over the network.

The detectors first run on the whole text, which is cheap, and then line by line, with all filters, only where they
found something.

Duplicates are exact copies after normalization, and near copies by MinHash. Two functions that differ only in comments,
docstring, layout or a few names are duplicates. The text that is read first is the original. Jaccard similarity is
estimated with 128 permutations (Broder 1997), so a pair close to the limit may or may not count.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from detect_secrets.core import scan
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.filters.allowlist import is_line_allowlisted
from detect_secrets.plugins.base import BasePlugin, RegexBasedDetector
from detect_secrets.plugins.high_entropy_strings import HighEntropyStringsPlugin
from detect_secrets.plugins.keyword import DENYLIST
from detect_secrets.settings import default_settings, get_plugins
from detect_secrets.util.code_snippet import get_code_snippet

from peft_core.code.structure import Function, Span, Structure, parse_structure
from peft_core.privacy.values import secret_values

if TYPE_CHECKING:
    from datasketch import MinHash  # type: ignore[import-untyped]

_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:(?!-----END )[\s\S]){0,20000}")
"""A private key with the lines below its head: detect-secrets reports only the head."""
_KEYWORD = re.compile("|".join(DENYLIST), re.IGNORECASE)
_CODE_TOKEN = re.compile(r"\w+|[^\w\s]")
_COMMENT = re.compile(r"(?:#|//).*")
PERMUTATIONS = 128
BANDS = (21, 6)
"""Number of bands of the index, and rows of each.

The index finds 998 of 1,000 pairs with a similarity of 0.8, and half of those with 0.57; the similarity of these pairs
is then estimated.
"""


@dataclass(frozen=True)
class CleanedText:
    """A text without its secrets; ``lines`` are the numbers, from 0, of the lines that were emptied."""

    text: str
    lines: frozenset[int]


@contextmanager
def detectors() -> Iterator[tuple[BasePlugin, ...]]:
    """Provide all detectors with their defaults, for ``without_secrets``; restore the library's settings afterwards."""
    with default_settings():
        assert get_mapping_from_secret_type_to_class()  # noqa: S101  (loaded by name: an empty list would see nothing)
        yield tuple(get_plugins())


def without_secrets(text: str, path: str, plugins: tuple[BasePlugin, ...]) -> CleanedText:
    """Empty every line of ``text`` that holds a secret; call it inside ``detectors``."""
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    suspects: dict[int, list[BasePlugin]] = {}
    for plugin in plugins:
        for start, end in _suspects(plugin, text):
            for row in range(bisect_right(starts, start) - 1, bisect_right(starts, max(start, end - 1))):
                suspects.setdefault(row, []).append(plugin)
    found = {row for row, those in suspects.items() if any(_holds_secret(lines, row, path, one) for one in those)}
    for start, _ in secret_values(text):
        row = bisect_right(starts, start) - 1
        if row not in found and not _is_allowed(lines, row, path):
            found.add(row)
    for match in _KEY.finditer(text):
        found.update(range(bisect_right(starts, match.start()) - 1, bisect_right(starts, match.end())))
    if not found:
        return CleanedText(text, frozenset())
    kept = ("" if row in found else line for row, line in enumerate(lines))
    return CleanedText("\n".join(kept), frozenset(row for row in found if row < len(lines)))


def _suspects(plugin: BasePlugin, text: str) -> Iterator[tuple[int, int]]:
    """Yield where a detector may find something."""
    min_chars = 0
    if isinstance(plugin, HighEntropyStringsPlugin):
        patterns = [plugin.regex]
        min_chars = int(2**plugin.entropy_limit) + len("''")  # no shorter text has that entropy
    elif isinstance(plugin, RegexBasedDetector):
        patterns = list(plugin.denylist)
    else:
        patterns = [_KEYWORD]
    for pattern in patterns:
        for match in pattern.finditer(text):
            if match.end() - match.start() > min_chars:
                yield match.span()


def _is_allowed(lines: list[str], row: int, path: str) -> bool:
    """Whether the author marked a line, in it or above it, as no secret."""
    return is_line_allowlisted(path, lines[row], get_code_snippet(lines=lines, line_number=row + 1))


def _holds_secret(lines: list[str], row: int, path: str, plugin: BasePlugin) -> bool:
    """Whether detect-secrets, with its filters, reports one line."""
    line = lines[row].rstrip()
    context = get_code_snippet(lines=lines, line_number=row + 1)
    if scan._is_filtered_out(required_filter_parameters=["line"], filename=path, line=line, context=context):
        return False
    return any(
        not scan._is_filtered_out(
            required_filter_parameters=["context"],
            filename=path,
            secret=secret.secret_value,
            plugin=plugin,
            line=line,
            context=context,
        )
        for secret in scan._scan_line(plugin=plugin, filename=path, line=line, line_number=row + 1, context=context)
    )


class DuplicateIndex:
    """Finds texts that repeat an earlier one; a text is given as a list of its parts."""

    def __init__(self, similarity: float, min_parts: int) -> None:
        """Texts with at least this Jaccard ``similarity`` (0 to 1) are duplicates.

        Texts with fewer than ``min_parts`` different parts are duplicates only if they are equal.
        """
        from datasketch import MinHash, MinHashLSH  # noqa: PLC0415  (scipy: half a second)

        self._similarity, self._min_parts = similarity, min_parts
        self._exact: set[bytes] = set()
        self._index = MinHashLSH(num_perm=PERMUTATIONS, params=BANDS)
        self._sketches: dict[int, MinHash] = {}
        self._permutations = MinHash(num_perm=PERMUTATIONS).permutations

    def seen_before(self, parts: list[str]) -> bool:
        """Return whether a text with these parts was seen before; if not, remember it."""
        digest = blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=16).digest()
        if digest in self._exact:
            return True
        different = sorted(set(parts))
        if len(different) >= self._min_parts:
            from datasketch import MinHash  # noqa: PLC0415  (see above)

            sketch = MinHash(PERMUTATIONS, hashfunc=zlib.crc32, permutations=self._permutations, scheme="affine32")
            sketch.update_batch([part.encode("utf-8", "replace") for part in different])
            if any(sketch.jaccard(self._sketches[key]) >= self._similarity for key in self._index.query(sketch)):
                return True
            self._index.insert(key := len(self._sketches), sketch)
            self._sketches[key] = sketch
        self._exact.add(digest)
        return False


def file_index() -> DuplicateIndex:
    """Return an index for ``file_parts``: files with four of five lines in common are duplicates."""
    return DuplicateIndex(similarity=0.8, min_parts=8)


def function_index() -> DuplicateIndex:
    """Return an index for ``function_parts``; functions of a few tokens are duplicates only if they are equal."""
    return DuplicateIndex(similarity=0.8, min_parts=24)


def file_parts(text: str) -> list[str]:
    """Return the lines of a file without white space at their ends."""
    return [stripped for line in text.split("\n") if (stripped := line.strip())]


def function_parts(code: str) -> list[str]:
    """Return all sequences of three tokens of a function, which is given without its docstring."""
    tokens = _CODE_TOKEN.findall(_COMMENT.sub("", code))
    return [" ".join(tokens[i : i + 3]) for i in range(max(1, len(tokens) - 2))]


@dataclass(frozen=True)
class FilteredSource:
    """The structure of a file without its secrets, and what no hole may touch."""

    structure: Structure
    secret: frozenset[int]
    """Rows that held a secret; they are empty now."""
    avoid: tuple[Span, ...]
    """Copies of functions seen before, and the starts of the emptied rows."""


class SourceFilter:
    """Filters files one after the other, and counts in ``dropped`` what it removes."""

    def __init__(self, plugins: tuple[BasePlugin, ...], dropped: Counter[str]) -> None:
        """Use it inside ``detectors``, with the plugins from there."""
        self._plugins, self._dropped = plugins, dropped
        self._files, self._functions = file_index(), function_index()

    def without_secrets(self, text: str, path: str) -> CleanedText:
        """Return a text without the lines that hold a secret."""
        cleaned = without_secrets(text, path, self._plugins)
        self._dropped["line: secret"] += len(cleaned.lines)
        return cleaned

    def apply(self, text: str, path: str, language: str) -> FilteredSource | None:
        """Return a file without secrets; None if most of its lines are those of a file seen before."""
        cleaned = self.without_secrets(text, path)
        if self._files.seen_before(file_parts(cleaned.text)):
            self._dropped["file: near-duplicate"] += 1
            return None
        found = parse_structure(cleaned.text, language)
        copies = [each.span for each in found.outermost if self._functions.seen_before(_compared(found, each))]
        self._dropped["function: near-duplicate"] += len(copies)
        return FilteredSource(found, cleaned.lines, (*copies, *_row_starts(found, cleaned.lines)))


def _compared(found: Structure, function: Function) -> list[str]:
    """Return the parts by which functions are compared: everything except the docstring."""
    text, span, docstring = found.text.text, function.span, function.docstring
    without = text[span.start : docstring.start] + text[docstring.end : span.end] if docstring else None
    return function_parts(text[span.start : span.end] if without is None else without)


def _row_starts(found: Structure, rows: frozenset[int]) -> Iterator[Span]:
    """Yield a span of one character at the start of each row."""
    for row in sorted(rows):
        yield Span(found.text.starts[row], found.text.starts[row] + 1)
