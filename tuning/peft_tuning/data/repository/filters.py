"""Filters for code that is learned from: lines that hold a secret, and files or functions that are there twice.

A secret is a password, token or key, as the detectors of detect-secrets or serving see them. Such a line is emptied
right after reading, before anything else sees the text; so no middle, prefix, suffix, sentence or chunk of another file
can hold it. Holes that touch an emptied line are not cut: see ``dataset``. What the author
allowed (``pragma: allowlist secret``) stays. All detectors run with their own limits and filters; they err on the side
of seeing too many. What serving masks counts as well: no answer may be learned that no suggestion may write. Nothing is
verified over the network.

The detectors are first run on the whole text, which costs little, and then line by line, with all filters, only where
that found something.

Duplicates are exact copies after normalization, and near ones by MinHash. A function counts as the same whatever its
comments, docstring and layout; renaming a variable or two does not make it another. The text that is met first is the
original. Jaccard similarity is estimated with 128 permutations (Broder 1997), so two texts at the limit can fall on
either side.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b

from datasketch import MinHash, MinHashLSH  # type: ignore[import-untyped]
from detect_secrets.core import scan
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.filters.allowlist import is_line_allowlisted
from detect_secrets.plugins.base import BasePlugin, RegexBasedDetector
from detect_secrets.plugins.high_entropy_strings import HighEntropyStringsPlugin
from detect_secrets.plugins.keyword import DENYLIST
from detect_secrets.settings import default_settings, get_plugins
from detect_secrets.util.code_snippet import get_code_snippet

from peft_core.privacy.values import secret_values

_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:(?!-----END )[\s\S]){0,20000}")
"""A private key with the lines below its head: detect-secrets reports the head alone."""
_KEYWORD = re.compile("|".join(DENYLIST), re.IGNORECASE)
_CODE_TOKEN = re.compile(r"\w+|[^\w\s]")
_COMMENT = re.compile(r"(?:#|//).*")
PERMUTATIONS = 128
BANDS = (21, 6)
"""Bands of the index and their rows.

The index proposes 998 of 1,000 pairs with a similarity of 0.8, and half of those with 0.57; the similarity of proposed
pairs is then estimated.
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
    """Where a detector may find something."""
    least = 0
    if isinstance(plugin, HighEntropyStringsPlugin):
        patterns = [plugin.regex]
        least = int(2**plugin.entropy_limit) + len("''")  # no shorter text has that entropy
    elif isinstance(plugin, RegexBasedDetector):
        patterns = list(plugin.denylist)
    else:
        patterns = [_KEYWORD]
    for pattern in patterns:
        for match in pattern.finditer(text):
            if match.end() - match.start() > least:
                yield match.span()


def _is_allowed(lines: list[str], row: int, path: str) -> bool:
    """Whether the author wrote at a line, or above it, that it is no secret."""
    return is_line_allowlisted(path, lines[row], get_code_snippet(lines=lines, line_number=row + 1))


def _holds_secret(lines: list[str], row: int, path: str, plugin: BasePlugin) -> bool:
    """What detect-secrets itself says of one line."""
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
    """The texts met so far, as sets of their parts."""

    def __init__(self, similarity: float, least: int) -> None:
        """Texts of at least ``least`` different parts are the same from this Jaccard ``similarity`` (0 to 1) on."""
        self._similarity, self._least = similarity, least
        self._exact: set[bytes] = set()
        self._index = MinHashLSH(num_perm=PERMUTATIONS, params=BANDS)
        self._sketches: dict[int, MinHash] = {}
        self._permutations = MinHash(num_perm=PERMUTATIONS).permutations

    def seen_before(self, parts: list[str]) -> bool:
        """Return whether a text of these parts was met before; if not, remember it."""
        digest = blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=16).digest()
        if digest in self._exact:
            return True
        different = sorted(set(parts))
        if len(different) >= self._least:
            sketch = MinHash(PERMUTATIONS, hashfunc=zlib.crc32, permutations=self._permutations, scheme="affine32")
            sketch.update_batch([part.encode("utf-8", "replace") for part in different])
            if any(sketch.jaccard(self._sketches[key]) >= self._similarity for key in self._index.query(sketch)):
                return True
            self._index.insert(key := len(self._sketches), sketch)
            self._sketches[key] = sketch
        self._exact.add(digest)
        return False


def file_index() -> DuplicateIndex:
    """Return an index for ``file_parts``: files with four of five lines in common are the same."""
    return DuplicateIndex(similarity=0.8, least=8)


def function_index() -> DuplicateIndex:
    """Return an index for ``function_parts``: a function of a few tokens is only the same if all of them are."""
    return DuplicateIndex(similarity=0.8, least=24)


def file_parts(text: str) -> list[str]:
    """Return the lines of a file without white space at their ends."""
    return [stripped for line in text.split("\n") if (stripped := line.strip())]


def function_parts(code: str) -> list[str]:
    """Return each three tokens in a row of a function given without its docstring."""
    tokens = _CODE_TOKEN.findall(_COMMENT.sub("", code))
    return [" ".join(tokens[i : i + 3]) for i in range(max(1, len(tokens) - 2))]
