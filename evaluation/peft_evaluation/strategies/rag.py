"""Retrieval: the k training examples most like the question stand before it, most similar first, as in the study."""

from __future__ import annotations

from peft_core.errors import InvalidInput
from peft_evaluation.items import ItemSet
from peft_evaluation.retrieval.base import Retriever
from peft_evaluation.strategies.base import NO_SEED, Strategy, query, questions

NEIGHBOURS = 3


def retrieval(items: ItemSet, retriever: Retriever, k: int = NEIGHBOURS) -> Strategy:
    """``k`` neighbours per prompt; raises InvalidInput when the pool is smaller, or k is not positive."""
    if not 1 <= k <= len(items.pool):
        raise InvalidInput(
            f"{k} neighbours are to be shown, and {items.name} has {len(items.pool)} training examples",
            fix="Give `--neighbours` between 1 and that, or use a data set with a training part",
        )
    found = retriever.neighbours([query(example) for example in items.pool], questions(items.items), k)
    return Strategy(
        id=f"rag-{retriever.id}-{k}",
        shown={NO_SEED: [tuple(items.pool[index] for index in each) for each in found]},
        settings={"retriever": retriever.version, "neighbours": str(k)},
    )
