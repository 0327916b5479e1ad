"""Which examples each strategy shows, and what may be asked for."""

from __future__ import annotations

import pytest

from peft_core.api_types import Task
from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.retrieval import Bm25Retriever
from peft_evaluation.sample import SampleSet
from peft_evaluation.strategies import NO_SEED, SEEDS, Strategy, Sweep, choose_strategies, in_context, retrieval
from support.evaluation_data import sentences
from support.synthetic_manifest import manifest

ADAPTER = manifest("mine", tasks=(Task.INTENT,), scale=0.75)


def chosen(*asked: str, sweep: Sweep | None = None, items: SampleSet | None = None) -> tuple[Strategy, ...]:
    def find(name: str) -> object:
        if name != "mine":
            raise NotFound(f"no adapter '{name}'")
        return ADAPTER

    return choose_strategies(asked, sweep or Sweep(), items or sentences(), find)  # type: ignore[arg-type]


def shown(strategy: Strategy, seed: int, index: int) -> list[str]:
    return [example.id for example in strategy.examples(seed, index)]


def test_zero_shot_shows_nothing() -> None:
    [strategy] = chosen("zero-shot")
    assert (strategy.id, strategy.seeds, shown(strategy, NO_SEED, 0)) == ("zero-shot", (NO_SEED,), [])


def test_in_context_examples_are_the_same_for_all_items_of_a_seed_and_others_for_another() -> None:
    items = sentences(count=5, pool=50)
    strategy = in_context(items, 3)
    assert strategy.seeds == SEEDS == (42, 777, 5432, 55555, 97)
    draws = {tuple(shown(strategy, seed, index)) for seed in SEEDS for index in range(5)}
    assert len(draws) == len(SEEDS)
    assert all(len(set(draw)) == 3 for draw in draws)
    assert shown(in_context(items, 3), 42, 0) == shown(strategy, 42, 0), "drawn by seed"


def test_neighbours_are_those_that_share_rare_words_most_similar_first() -> None:
    items = sentences(count=8, pool=8)
    strategy = retrieval(items, Bm25Retriever(), 2)
    # Question and pool share the verb with the same index; all else is in every text or in none.
    assert [shown(strategy, NO_SEED, index)[0] for index in range(8)] == [f"p{index}" for index in range(8)]
    assert strategy.id == "rag-bm25-2"


def test_a_question_without_a_known_word_gets_neighbours_all_the_same() -> None:
    assert Bm25Retriever().neighbours(["sort a list", "join texts"], ["прочитать файл", ""], 2) == [(0, 1), (0, 1)]


def test_the_most_similar_text_comes_first_and_equals_keep_their_order() -> None:
    pool = ["open the file", "read csv file with pandas", "pandas", "open the file"]
    assert Bm25Retriever().neighbours(pool, ["read a csv with pandas"], 2) == [(1, 2)]
    assert Bm25Retriever().neighbours(pool, ["open"], 2) == [(0, 3)]


def test_every_combination_of_the_parameters_is_a_strategy() -> None:
    sweep = Sweep(examples=(1, 2), neighbours=(1, 3), retrievers=("bm25",), seeds=(1, 2))
    ids = [
        strategy.id for strategy in chosen("zero-shot", "icl", "rag", "adapter:mine", "adapter+rag:mine", sweep=sweep)
    ]
    assert ids == [
        *("zero-shot", "icl-1", "icl-2", "rag-bm25-1", "rag-bm25-3", "adapter:mine"),
        *("adapter+rag-bm25-1:mine", "adapter+rag-bm25-3:mine"),
    ]


def test_an_adapter_is_recorded_with_its_digest_and_scale() -> None:
    [alone, together] = chosen("adapter:mine", "adapter+rag:mine")
    assert alone.adapter == together.adapter == ADAPTER.digest
    assert alone.settings["scale"] == "0.75"
    assert together.settings["retriever"].startswith("bm25s")
    assert len(together.examples(NO_SEED, 0)) == 3


@pytest.mark.parametrize(
    "asked", ["one-shot", "", "adapter", "adapter:", "rag:mine", "zero-shot:x", "adapter+one:mine", "icl+adapter:mine"]
)
def test_an_unknown_strategy_is_refused_with_the_known_ones(asked: str) -> None:
    with pytest.raises(InvalidInput, match=r"zero-shot, icl, rag, alone, context, adapter:NAME"):
        chosen(asked)


def test_an_adapter_that_is_not_there_is_refused() -> None:
    with pytest.raises(NotFound):
        chosen("adapter:other")


def test_the_same_strategy_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="twice"):
        chosen("rag", "zero-shot", "rag")


def test_more_examples_than_there_are_is_refused() -> None:
    for asked in ("icl", "rag"):
        with pytest.raises(InvalidInput, match="2 training examples"):
            chosen(asked, items=sentences(pool=2))


@pytest.mark.parametrize(
    "sweep", [Sweep(examples=(0,)), Sweep(neighbours=(0,)), Sweep(retrievers=("telepathy",)), Sweep(seeds=(1, 2, 1))]
)
def test_nonsense_is_refused(sweep: Sweep) -> None:
    with pytest.raises(InvalidInput):
        chosen("icl", "rag", sweep=sweep)
