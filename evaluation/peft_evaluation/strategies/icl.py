"""In-context learning: n training examples drawn by seed stand before every question, the same for all items.

The study draws n = 1, 2, 3 (later up to 16) with five seeds (arXiv 2308.10462, section on ICL); an item's score is the
mean over them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from peft_core.errors import InvalidInput
from peft_evaluation.items import ItemSet
from peft_evaluation.strategies.base import Strategy

SEEDS = (42, 777, 5432, 55555, 97)
"""The study's."""
EXAMPLES = 3


def in_context(items: ItemSet, n: int = EXAMPLES, seeds: Sequence[int] = SEEDS) -> Strategy:
    """``n`` examples per prompt; raises InvalidInput when the pool is smaller, or n is not positive."""
    if n < 1:
        raise InvalidInput(f"{n} examples in the prompt", fix="Use `--strategy zero-shot` for none")
    if n > len(items.pool):
        raise InvalidInput(
            f"{n} examples are to be shown, and {items.name} has {len(items.pool)} training examples",
            fix="Lower `--examples`, or use a data set with a training part",
        )
    drawn = {seed: tuple(random.Random(seed).sample(items.pool, n)) for seed in seeds}  # noqa: S311  (a draw of examples)
    return Strategy(
        id=f"icl-{n}",
        seeds=tuple(seeds),
        shown={seed: [examples] * len(items.items) for seed, examples in drawn.items()},
        settings={"examples": str(n)},
    )
