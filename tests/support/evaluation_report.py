"""A finished report on twenty small items, and what it is made of."""

from __future__ import annotations

from peft_evaluation.generation import SampleResult
from peft_evaluation.journal import EvaluationIdentity, StrategyIdentity
from peft_evaluation.model import ModelOutput
from peft_evaluation.report.builder import assemble
from peft_evaluation.report.schema import Report
from peft_evaluation.scorers.scoring import score
from support.evaluation_data import sentences
from support.synthetic_manifest import manifest

ITEMS = sentences(count=20)
IDENTITY = EvaluationIdentity(
    command="peft-daemon evaluate",
    data="small",
    part="test",
    data_digest=ITEMS.digest,
    model="tiny",
    model_sha256="0" * 64,
    engine="llamacpp",
    formats="",
    decoding={"decoding": "greedy"},
    max_tokens=16,
    context_tokens=512,
    strategies={
        "zero-shot": StrategyIdentity((0,), {}),
        "icl-1": StrategyIdentity((1, 2), {"examples": "1"}),
        "adapter:mine": StrategyIdentity((0,), {"adapter": "mine abab"}),
    },
)


def answered(strategy: str, index: int, text: str, seed: int = 0, latency_ms: float = 100.0) -> SampleResult:
    return SampleResult(
        strategy=strategy,
        seed=seed,
        item=f"t{index}",
        given=ModelOutput(
            texts=(text,), shown=0, prompt_tokens=40, reused_tokens=30, answer_tokens=4, latency_ms=latency_ms
        ),
        examples=(),
        memory_bytes=5_000_000,
        session="2026-01-01",
        elapsed_s=float(index),
    )


def answers() -> list[SampleResult]:
    """zero-shot is never right; icl with its first seed on even items; the adapter always."""
    found = []
    for index in range(20):
        found.append(answered("zero-shot", index, "y("))
        found.append(answered("icl-1", index, f"x{index}()" if index % 2 == 0 else "z()", seed=1))
        found.append(answered("icl-1", index, "z()", seed=2))
        found.append(answered("adapter:mine", index, f"x{index}() \n", latency_ms=100.0 + index))
    return found


def finished_report() -> Report:
    given = answers()
    return assemble(
        IDENTITY, ITEMS, given, score(ITEMS, given, {}), adapters={"adapter:mine": manifest("mine")}, seconds=12.0
    )
