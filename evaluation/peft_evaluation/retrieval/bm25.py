"""Lexical retrieval: BM25 (Robertson and Zaragoza 2009, Lucene's variant) over words, as ``bm25s`` computes it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from peft_evaluation.retrieval.base import best

_WORD = re.compile(r"[a-z]+|\d+")
"""Words and numbers in lower case; identifiers fall apart at underscores and capitals do not count."""


class Bm25:
    """See the module."""

    id = "bm25"

    @property
    def version(self) -> str:
        """The library and its version."""
        return f"bm25s {version('bm25s')}"

    def neighbours(self, pool: Sequence[str], questions: Sequence[str], k: int) -> list[tuple[int, ...]]:
        """See ``Retriever``; a question that shares no word with the pool gets its first texts."""
        import bm25s  # noqa: PLC0415  (half a second)

        index = bm25s.BM25(method="lucene")
        index.index([words(text) for text in pool], show_progress=False)
        known = index.vocab_dict
        found = []
        for question in questions:
            # The library fails on a query none of whose words it has seen.
            query = [word for word in words(question) if word in known]
            scores = index.get_scores(query) if query else np.zeros(len(pool))
            found.append(best(scores, k))
        return found


def words(text: str) -> list[str]:
    """What is compared."""
    return _WORD.findall(text.lower())
