"""APPS with its tests: the first 250 problems of each difficulty, or a published selection of 150.

Hendrycks et al. 2021 (arXiv 2105.09938).
"""

from __future__ import annotations

from peft_core.errors import InvalidInput
from peft_evaluation.items import Item, ItemSet
from peft_tuning.data.datasets import apps
from peft_tuning.data.datasets.sources import DataLocations, find
from peft_tuning.data.examples import IntentExample

ANSWER_TOKENS = 1024


def load(places: DataLocations, seed: int) -> ItemSet:
    """Problems with their tests; training problems, where there are any, are the pool. InvalidInput without a test."""
    found = find(apps.WANTED, places)
    problems = list(apps.test_problems(found))
    if not problems:
        raise InvalidInput("the files of APPS hold no test problems", fix="Give the test file with `--data`")
    data = apps.load(places, seed)
    items = tuple(
        Item(
            example=IntentExample(
                id=f"apps/test/{problem.id}",
                intent=problem.prompt,
                code=(problem.solutions[0] if problem.solutions else "").strip("\n"),
            ),
            group=problem.difficulty,
            tests=problem.tests,
        )
        for problem in problems
    )
    untested = sum(problem.tests is None or not problem.tests.inputs for problem in problems)
    return ItemSet(
        name="apps",
        part="test",
        items=items,
        pool=data.train,
        max_tokens=ANSWER_TOKENS,
        licence=data.licence,
        provenance=data.provenance,
        notes=(f"{untested} problems come without usable tests and count as not passed.",) if untested else (),
    )
