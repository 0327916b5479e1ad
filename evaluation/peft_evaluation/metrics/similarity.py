"""Edit similarity: 1 - Levenshtein distance / length of the longer text, in characters; for holes."""

from __future__ import annotations

from collections.abc import Mapping

from rapidfuzz.distance import Levenshtein


def similarity(candidate: str, reference: str) -> Mapping[str, float]:
    """``similarity``; white space at the ends does not count."""
    return {"similarity": Levenshtein.normalized_similarity(candidate.rstrip(), reference.rstrip())}
