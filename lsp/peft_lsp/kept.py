"""How much of an accepted text is still there: characters in stretches that both texts have in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import accumulate

LEAST = 3
"""Characters of a stretch that counts: single letters are alike in any two texts."""
LONGEST = 2000
"""Characters that are compared one by one; longer texts are compared line by line."""


def kept_characters(before: str, now: str) -> int:
    """How many characters of ``before`` are found in ``now``; all of them if it holds ``before`` as a whole."""
    if before in now:
        return len(before)
    if max(len(before), len(now)) > LONGEST:
        return _kept(before.splitlines(keepends=True), now.splitlines(keepends=True), least=1)
    return _kept(list(before), list(now), least=min(LEAST, len(before)))


def _kept(before: Sequence[str], now: Sequence[str], *, least: int) -> int:
    ends = [0, *accumulate(map(len, before))]
    blocks = SequenceMatcher(None, before, now, autojunk=False).get_matching_blocks()
    return sum(ends[block.a + block.size] - ends[block.a] for block in blocks if block.size >= least)
