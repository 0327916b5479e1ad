"""Every strategy answers every item once per seed, whatever interrupts it in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_daemon.adapters.manifest import AdapterLease
from peft_evaluation.generation import GenerationProgress, SampleResult, generate
from peft_evaluation.journal import Journal
from peft_evaluation.sample import SampleSet
from peft_evaluation.strategies import NO_SEED, Strategy, in_context, zero_shot
from support.evaluation_data import ToldAnswerer, sentences

ITEMS = sentences(count=4)
STRATEGIES = (zero_shot(), in_context(ITEMS, 2, seeds=(1, 2)), Strategy(id="adapter:mine", adapter="ab" * 32))
KEYS = [
    *(("zero-shot", NO_SEED, f"t{i}") for i in range(4)),
    *(("icl-2", seed, f"t{i}") for seed in (1, 2) for i in range(4)),
    *(("adapter:mine", NO_SEED, f"t{i}") for i in range(4)),
]


def lease(digest: str) -> AdapterLease:
    return AdapterLease(digest, Path("adapter.gguf"), 0.5)


async def run(folder: Path, answerer: ToldAnswerer, items: SampleSet = ITEMS) -> list[GenerationProgress]:
    told: list[GenerationProgress] = []
    with Journal(folder / "answers.jsonl", SampleResult) as journal:
        await generate(items, STRATEGIES, answerer, lease=lease, journal=journal, on_progress=told.append)
    return told


def keys(folder: Path) -> list[tuple[str, int, str]]:
    return [answered.key for answered in Journal(folder / "answers.jsonl", SampleResult).read()]


async def test_each_item_is_answered_once_per_strategy_and_seed_in_that_order(tmp_path: Path) -> None:
    told = await run(tmp_path, ToldAnswerer())
    assert keys(tmp_path) == KEYS
    assert [(each.done, each.of) for each in told] == [(number, 16) for number in range(1, 17)]


async def test_what_is_asked_is_what_the_strategy_says(tmp_path: Path) -> None:
    answerer = ToldAnswerer()
    await run(tmp_path, answerer)
    adapters = [question.adapter for question in answerer.asked]
    assert adapters == [None] * 12 + [lease("ab" * 32)] * 4
    assert [len(question.shown) for question in answerer.asked] == [0] * 4 + [2] * 8 + [0] * 4
    [answered] = [a for a in Journal(tmp_path / "answers.jsonl", SampleResult).read() if a.key == ("icl-2", 1, "t0")]
    assert answered.examples == tuple(example.id for example in STRATEGIES[1].examples(1, 0))


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("fails_at", [0, 5, 15])
async def test_after_a_failure_only_what_is_missing_is_asked(tmp_path: Path, fails_at: int, at_once: int) -> None:
    with pytest.raises(RuntimeError, match="the engine died"):
        await run(tmp_path, ToldAnswerer(fails_at=fails_at, at_once=at_once))
    before = keys(tmp_path)
    assert len(before) <= fails_at
    answerer = ToldAnswerer(at_once=at_once)
    told = await run(tmp_path, answerer)
    assert len(answerer.asked) == len(KEYS) - len(before)
    assert sorted(keys(tmp_path)) == sorted(KEYS)
    assert told[0].done == len(before) + 1


async def test_as_many_samples_are_in_progress_as_the_model_allows(tmp_path: Path) -> None:
    answerer = ToldAnswerer(at_once=3)
    await run(tmp_path, answerer)
    assert answerer.most_under_way == 3


async def test_a_finished_run_asks_nothing(tmp_path: Path) -> None:
    await run(tmp_path, ToldAnswerer())
    answerer = ToldAnswerer()
    assert await run(tmp_path, answerer) == []
    assert answerer.asked == []
