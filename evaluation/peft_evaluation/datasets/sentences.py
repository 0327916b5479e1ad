"""Sentences with reference code: the test part of a data set of tuning, its training part as the pool.

The very loaders that tuning uses read the files, so that what is tested was not trained on.
"""

from __future__ import annotations

from peft_core.errors import InvalidInput
from peft_evaluation.items import Item, ItemSet
from peft_tuning.data.datasets import catalogue
from peft_tuning.data.datasets.sources import DataLocations
from peft_tuning.data.examples import DataSet, Example, FillExample, HoleKind

NOTES = {
    "conala": (
        "Conala's development and test parts share 27 posts on Stack Overflow.",
        "On Conala, differences below 5 points have been found to be noise to human readers (arXiv 2208.03133).",
    ),
    "codealpacapy": ("The study's split is not public; this one is by a fixed seed, with the same sizes.",),
}


def load(name: str, places: DataLocations, seed: int) -> ItemSet:
    """A data set of the tuning catalogue, or a FILE.jsonl; raises what that does, InvalidInput without a test."""
    data = catalogue.load(name, places, seed=seed)
    return item_set(data, NOTES.get(name, ()))


def item_set(data: DataSet, notes: tuple[str, ...] = ()) -> ItemSet:
    """The test part of ``data``; raises InvalidInput when it is empty."""
    if not data.test:
        raise InvalidInput(
            f"{data.name} has no test part",
            why="an evaluation needs examples that nothing was tuned on",
            fix="In a FILE.jsonl, give rows a `split` of test; in a repository, commit more code",
        )
    return ItemSet(
        name=data.name,
        part="test",
        items=tuple(Item(example=example, group=_group(example)) for example in data.test),
        pool=data.train,
        max_tokens=data.response_tokens,
        licence=data.licence,
        provenance=data.provenance,
        notes=notes,
    )


def _group(example: Example) -> str:
    return HoleKind(example.kind).value if isinstance(example, FillExample) else ""
