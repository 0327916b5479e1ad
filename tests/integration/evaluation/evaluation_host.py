"""A process that evaluates on a tiny base and can be killed: prints what it is told of, one JSON line each.

python evaluation_host.py HOME [--resume]
"""

from __future__ import annotations

import sys
from pathlib import Path

from peft_evaluation.items import Item, ItemSet
from peft_evaluation.run import EvaluateRequest, answer_all
from peft_evaluation.strategies.choosing import Sweep
from peft_tuning.examples import IntentExample
from peft_tuning.progress_view import JsonLines
from support.tiny_place import tiny_place

EXAMPLES = tuple(IntentExample(id=f"e{n}", intent=f"add {n} to x", code=f"x+{n}") for n in range(20))
ITEMS = ItemSet(
    name="sums",
    part="test",
    items=tuple(Item(example=example) for example in EXAMPLES[:6]),
    pool=EXAMPLES[6:],
    max_tokens=8,
    licence="MIT",
    provenance="made here",
)


def request(**changes: object) -> EvaluateRequest:
    """Three strategies, twelve runs of the items in all less what is not asked."""
    facts: dict[str, object] = {
        "name": "sums",
        "load_items": lambda _tell: ITEMS,
        "strategies": ("zero-shot", "icl", "rag"),
        "sweep": Sweep(examples=(2,), neighbours=(2,), seeds=(1, 2)),
        "at_once": 2,
    }
    return EvaluateRequest(**(facts | changes))  # type: ignore[arg-type]


if __name__ == "__main__":
    answer_all(request(resume="--resume" in sys.argv), tiny_place(Path(sys.argv[1])), JsonLines(sys.stdout))
