"""A process that evaluates on a tiny base and can be killed: prints what it is told of, one JSON line each.

python evaluation_host.py HOME [--resume] [--report] [--ray HOST:PORT] [--long] [--hold COUNT FILE]

With ``--report`` it goes on to the report. With ``--hold`` it stands still when so many are answered in all, until the
file is there.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from peft_cli.progress_view import JsonLines
from peft_evaluation.runner import EvaluateRequest, EvaluationEvent, SampleAnswered, answer_all, evaluate
from peft_evaluation.sample import Sample, SampleSet
from peft_evaluation.strategies import Sweep
from peft_tuning.data.examples import IntentExample
from support.tiny_installation import TinyInstallation, tiny_installation

EXAMPLES = tuple(IntentExample(id=f"e{n}", intent=f"add {n} to x", code=f"x+{n}") for n in range(20))
ITEMS = SampleSet(
    name="sums",
    part="test",
    items=tuple(Sample(example=example) for example in EXAMPLES[:6]),
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


LONG = {"strategies": ("zero-shot", "adapter:mine", "icl"), "sweep": Sweep(examples=(2,), seeds=tuple(range(1, 8)))}
"""Forty-two questions in one row at the end, which nothing separates."""


def adapter(installation: TinyInstallation) -> None:
    """Register the adapter ``mine``, if it is not there."""
    if installation.registry.history("mine"):
        return
    from support.tiny_served import write_adapter

    with tempfile.TemporaryDirectory() as folder:
        made = write_adapter(installation.base, "lora", Path(folder) / "mine")
        installation.registry.import_(made, name="mine", base=installation.base)


def holding(
    on_progress: Callable[[EvaluationEvent], None], count: int, gate: Path
) -> Callable[[EvaluationEvent], None]:
    """``on_progress``, and stand still as the module says."""

    def told(event: EvaluationEvent) -> None:
        on_progress(event)
        while isinstance(event, SampleAnswered) and event.done == count and not gate.exists():
            time.sleep(0.01)

    return told


if __name__ == "__main__":
    ray = sys.argv[sys.argv.index("--ray") + 1] if "--ray" in sys.argv else None
    changes = LONG if "--long" in sys.argv else {}
    asked = request(resume="--resume" in sys.argv, ray=ray, **changes)
    here = tiny_installation(Path(sys.argv[1]))
    if "--long" in sys.argv:
        adapter(here)
    on_progress: Callable[[EvaluationEvent], None] = JsonLines(sys.stdout)
    if "--hold" in sys.argv:
        count, gate = sys.argv[sys.argv.index("--hold") + 1 :][:2]
        on_progress = holding(on_progress, int(count), Path(gate))
    (evaluate if "--report" in sys.argv else answer_all)(asked, here, on_progress)
