"""Passages found by their words, in an index that changes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peft_daemon.context.index import FEW_PASSAGES, Postings, split_words

WORDS = st.frozensets(st.sampled_from(["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]), min_size=1)


def test_the_passage_that_shares_the_rarest_words_comes_first() -> None:
    index = Postings()
    numbers = [
        index.add(split_words(text)) for text in ("load the order", "load the parcel", "store the order of a day")
    ]
    assert [number for number, _score in index.best(split_words("load an order"), 3)] == [
        numbers[0],
        numbers[1],
        numbers[2],
    ]


def test_a_short_passage_beats_a_long_one_with_the_same_words() -> None:
    index = Postings()
    long = index.add(split_words("parcel a bb cc dd ee ff gg hh ii jj kk ll mm nn oo"))
    short = index.add(split_words("parcel bb"))
    assert [number for number, _score in index.best(["parcel"], 2)] == [short, long]


def test_a_word_that_many_passages_have_finds_none() -> None:
    index = Postings()
    for number in range(FEW_PASSAGES * 20):
        index.add({"self", f"w{number}"})
    assert index.best(["self"], 5) == []
    assert [number for number, _score in index.best(["self", "w7"], 5)] == [7]


def test_nothing_is_found_where_nothing_is_shared_or_there() -> None:
    index = Postings()
    assert index.best(["a"], 3) == []
    index.remove(index.add({"aa"}))
    assert index.best(["aa"], 3) == []
    assert len(index) == 0


def test_identifiers_fall_apart_at_underscores_and_capitals_do_not_count() -> None:
    assert split_words("Load_order(x1, größe)") == {"load", "order", "größe"}


@given(st.lists(st.tuples(WORDS, st.booleans()), min_size=1, max_size=40), WORDS)
def test_an_index_that_lost_passages_answers_like_one_that_never_had_them(
    passages: list[tuple[frozenset[str], bool]], question: frozenset[str]
) -> None:
    changed, fresh = Postings(), Postings()
    numbers = [changed.add(passage) for passage, _stays in passages]
    for number, (_passage, stays) in zip(numbers, passages, strict=True):
        if not stays:
            changed.remove(number)
            changed.remove(number)
    kept = [number for number, (_passage, stays) in zip(numbers, passages, strict=True) if stays]
    for passage, stays in passages:
        if stays:
            fresh.add(passage)
    wanted = [(kept[number], score) for number, score in fresh.best(question, 50)]
    assert changed.best(question, 50) == wanted
    moved = changed.closed_up()
    assert list(moved) == kept
    assert changed.best(question, 50) == fresh.best(question, 50)
    assert len(changed) == len(fresh) == len(kept)
