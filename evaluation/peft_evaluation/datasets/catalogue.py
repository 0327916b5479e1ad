"""Which data sets can be evaluated on by name; any other name is a file of the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.datasets import humaneval, mbpp, problems, sentences
from peft_evaluation.items import Item, ItemSet
from peft_tuning.data.datasets import catalogue as tuning
from peft_tuning.data.datasets.sources import SEED, DataLocations

Load = Callable[[DataLocations, int], ItemSet]

LOADERS: Mapping[str, Load] = {
    "conala": lambda places, seed: sentences.load("conala", places, seed),
    "codealpacapy": lambda places, seed: sentences.load("codealpacapy", places, seed),
    "apps": problems.load,
    "humaneval": lambda places, _seed: humaneval.load(places),
    "mbpp": lambda places, _seed: mbpp.load(places),
}
"""A new one is a module here and a line."""


def load(name: str, places: DataLocations, *, seed: int = SEED) -> ItemSet:
    """The items called ``name``, or of the file of that path, each once.

    Raises NotFound, InvalidInput for two items of one id, and what the loader raises.
    """
    if tuning.is_file(name):
        return once(sentences.load(name, places, seed))
    if name not in LOADERS:
        raise NotFound(
            f"there is no data set '{name}' to evaluate on",
            why=f"there are {', '.join(LOADERS)}",
            fix="Or give the path of a FILE.jsonl, or `--repo FOLDER`",
        )
    return once(LOADERS[name](places, seed))


def once(found: ItemSet) -> ItemSet:
    """The set without repetitions, which a note counts. Raises InvalidInput for different items of one id."""
    kept: dict[str, Item] = {}
    for item in found.items:
        if kept.setdefault(item.id, item) != item:
            raise InvalidInput(
                f"{found.name} has two different items called {item.id}", fix="Give each an id of its own in the file"
            )
    if not (repeated := len(found.items) - len(kept)):
        return found
    note = f"{repeated} of the {len(found.items)} items repeat another one and are asked once."
    return replace(found, items=tuple(kept.values()), notes=(*found.notes, note))
