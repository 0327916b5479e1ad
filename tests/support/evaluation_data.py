"""Small sets of items, and an answerer that says what it is told to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from peft_evaluation.model import ModelInput, ModelOutput
from peft_evaluation.sample import Sample, SampleSet
from peft_tuning.data.examples import IntentExample

WORDS = ("sort", "reverse", "join", "split", "strip", "count", "open", "close")


def sentences(count: int = 4, pool: int = 8) -> SampleSet:
    """``count`` questions whose right answers are known, and a pool of as many other examples."""
    return SampleSet(
        name="small",
        part="test",
        items=tuple(
            Sample(example=IntentExample(id=f"t{i}", intent=f"{WORDS[i % 8]} the list {i}", code=f"x{i}()"))
            for i in range(count)
        ),
        pool=tuple(IntentExample(id=f"p{i}", intent=f"{WORDS[i % 8]} a text {i}", code=f"y{i}()") for i in range(pool)),
        max_tokens=16,
        licence="none",
        provenance="made here",
    )


@dataclass
class ToldAnswerer:
    """Answers every question with ``answers[id]`` or its own id; fails at the question ``fails_at``."""

    answers: dict[str, str] = field(default_factory=dict)
    at_once: int = 1
    fails_at: int | None = None
    asked: list[ModelInput] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    async def answer(self, question: ModelInput) -> ModelOutput:
        self.asked.append(question)
        if self.fails_at is not None and len(self.asked) > self.fails_at:
            raise RuntimeError("the engine died")
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        return ModelOutput(
            texts=(self.answers.get(question.example.id, question.example.id),),
            shown=len(question.shown),
            prompt_tokens=10 + 5 * len(question.shown),
            reused_tokens=8,
            answer_tokens=3,
            latency_ms=100.0,
        )

    def memory_bytes(self) -> int:
        return 1_000_000
