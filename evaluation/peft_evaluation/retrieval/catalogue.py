"""Retrievers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from peft_core.errors import InvalidInput
from peft_evaluation.retrieval.base import Retriever
from peft_evaluation.retrieval.bm25 import Bm25
from peft_evaluation.retrieval.dense import gte_small, minilm

RETRIEVERS: Mapping[str, Callable[[], Retriever]] = {"bm25": Bm25, "dense": minilm, "gte-small": gte_small}


def get(name: str) -> Retriever:
    """The retriever of that name; InvalidInput lists them."""
    if name not in RETRIEVERS:
        raise InvalidInput(f"there is no retriever '{name}'", why=f"there are {', '.join(RETRIEVERS)}")
    return RETRIEVERS[name]()
