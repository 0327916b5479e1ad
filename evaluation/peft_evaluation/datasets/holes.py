"""Holes in the user's own code: those that tuning on the same repository holds out for its test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from peft_evaluation.datasets.sentences import item_set
from peft_evaluation.items import ItemSet
from peft_tuning.data.examples import FillExample
from peft_tuning.data.repository.dataset import repository_data_set
from peft_tuning.gate import ANSWER_TOKENS

Tell = Callable[[str, int, int], None]


def load(repository: Path, seed: int, tell: Tell | None = None) -> ItemSet:
    """The test part of the repository's data set, as tuning cuts it; raises what ``repository_data_set`` raises.

    Sentences among its examples are left out: they are few, and scored by other metrics than holes.
    """
    data = repository_data_set(repository, seed=seed, progress=tell)
    holes = tuple(each for each in data.test if isinstance(each, FillExample))
    return replace(item_set(replace(data, test=holes)), max_tokens=ANSWER_TOKENS, root=repository.resolve())
