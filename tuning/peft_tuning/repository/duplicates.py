"""Is this file or function there already? Exact copies after normalization, and near ones by MinHash.

A function counts as the same whatever its comments, docstring and layout; renaming a variable or two does not make it
another. Deterministic: what is asked first is the original. Jaccard similarity is estimated with 128 permutations
(Broder 1997), so two texts at the limit can fall on either side.
"""

from __future__ import annotations

import re
import zlib
from hashlib import blake2b

from datasketch import MinHash, MinHashLSH  # type: ignore[import-untyped]

_TOKEN = re.compile(r"\w+|[^\w\s]")
_COMMENT = re.compile(r"(?:#|//).*")
PERMUTATIONS = 128
BANDS = (21, 6)
"""Bands of the index and their rows. It proposes 998 of 1,000 pairs with a similarity of 0.8 (and half of those with
0.57); what it proposes is then compared."""


class Seen:
    """The texts met so far, as sets of what they are made of."""

    def __init__(self, similarity: float, least: int) -> None:
        """Texts of at least ``least`` different parts are the same from this Jaccard ``similarity`` (0 to 1) on."""
        self._similarity, self._least = similarity, least
        self._exact: set[bytes] = set()
        self._index = MinHashLSH(num_perm=PERMUTATIONS, params=BANDS)
        self._sketches: dict[int, MinHash] = {}
        self._permutations = MinHash(num_perm=PERMUTATIONS).permutations

    def again(self, parts: list[str]) -> bool:
        """Whether a text of these parts was met before; if not, it is from now on."""
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


def seen_files() -> Seen:
    """For ``file_parts``: four lines of five are the same."""
    return Seen(similarity=0.8, least=8)


def seen_functions() -> Seen:
    """For ``function_parts``: a function of a few tokens is only the same if all of them are."""
    return Seen(similarity=0.8, least=24)


def file_parts(text: str) -> list[str]:
    """The lines of a file without white space at their ends."""
    return [stripped for line in text.split("\n") if (stripped := line.strip())]


def function_parts(code: str) -> list[str]:
    """Each three tokens in a row of a function given without its docstring."""
    tokens = _TOKEN.findall(_COMMENT.sub("", code))
    return [" ".join(tokens[i : i + 3]) for i in range(max(1, len(tokens) - 2))]
