"""Each metric by its definition."""

from __future__ import annotations

import warnings
from itertools import combinations
from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_evaluation.scorers.code_bleu.score import code_bleu
from peft_evaluation.scorers.metrics import (
    METRICS,
    WHOLES,
    chrf,
    estimate_pass_at_k,
    exact_match,
    pass_at_k,
    similarity,
    syntax,
)


def test_the_reference_among_the_first_k_counts_whatever_its_white_space() -> None:
    candidates = ["a + b", "sorted( x )", "sorted(x,\n  key=f)", *["z"] * 7]
    assert exact_match(candidates, "sorted(x, key=f)") == {"em@1": 0, "em@2": 0, "em@5": 1, "em@10": 1}
    assert exact_match(["sorted(x,  key=f)\n"], " sorted(x, key=f)") == {"em@1": 1}


@pytest.mark.parametrize(
    ("answer", "equal"),
    [
        ('print( "a b" )', False),
        ('print("a  b")', True),
        ('print("a  b")  # it\'s\n', False),
        ("print('a  b')", False),
        ('print(\n    "a  b")', False),
    ],
)
def test_white_space_in_a_string_counts(answer: str, *, equal: bool) -> None:
    assert exact_match([answer], 'print("a  b")')["em@1"] == equal
    assert exact_match([f"x =  {answer}"], f"x = {answer}\n")["em@1"] == 1


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 9, 10, 11])
def test_with_fewer_candidates_than_k_there_is_no_figure(count: int) -> None:
    expected = [f"em@{k}" for k in (1, 2, 5, 10) if k <= count]
    assert list(exact_match(["x"] * count, "x")) == expected


@given(st.integers(0, 8), st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_passing_answer(n: int, k: int, data: st.DataObject) -> None:
    c = data.draw(st.integers(0, n))
    value = estimate_pass_at_k(n, c, k)
    if n < k:
        assert isnan(value)
        return
    draws = list(combinations([True] * c + [False] * (n - c), k))
    assert value == pytest.approx(sum(map(any, draws)) / len(draws))


@given(st.integers(1, 200), st.data())
def test_pass_at_k_grows_with_k_and_with_what_passes(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert estimate_pass_at_k(n, c, 1) == pytest.approx(c / n)
    assert estimate_pass_at_k(n, c, k) >= estimate_pass_at_k(n, c, 1) - 1e-12
    if c < n:
        assert estimate_pass_at_k(n, c + 1, k) >= estimate_pass_at_k(n, c, k)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 0)])
def test_pass_at_k_of_nonsense_is_an_error(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@"):
        estimate_pass_at_k(n, c, k)


def test_pass_at_k_has_no_figure_for_more_than_was_drawn() -> None:
    assert pass_at_k([True, False, False]) == {"pass@1": pytest.approx(1 / 3), "pass@2": pytest.approx(2 / 3)}
    assert pass_at_k([]) == {}


def test_chrf_agrees_with_the_definition_on_a_case_done_by_hand() -> None:
    # "ab" and "abc": of characters 2 of 2 and 2 of 3, of pairs 1 of 1 and 1 of 2; longer runs are in neither or one.
    precision, recall = (2 / 2 + 1 / 1) / 2, (2 / 3 + 1 / 2) / 2
    expected = 100 * 5 * precision * recall / (4 * precision + recall)
    assert chrf("ab", "abc")["chrf"] == pytest.approx(expected, abs=0.2)
    assert chrf("x = f(y)", "x = f(y)") == {"chrf": pytest.approx(100), "chrf++": pytest.approx(100)}
    assert chrf("", "abc")["chrf"] == 0


@given(st.text(max_size=20), st.text(max_size=20))
def test_similarity_is_symmetric_within_its_range_and_1_for_itself(a: str, b: str) -> None:
    value = similarity(a, b)["similarity"]
    assert 0 <= value <= 1
    assert value == similarity(b, a)["similarity"]
    assert similarity(a, a + " \n")["similarity"] == 1


def test_similarity_counts_edits() -> None:
    assert similarity("kitten", "sitting")["similarity"] == pytest.approx(1 - 3 / 7)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("x = 1", 1),
        ("def f():\n    return 1\n", 1),
        ("", 0),
        (" \n", 0),
        ("x = ", 0),
        ("  x = 1", 0),
        ("print 'x'", 0),
        ("x = '\x00'", 0),
        ("x = '\\w'", 1),
        ("(" * 500, 0),
        ("-" * 100_000 + "1", 0),
    ],
)
def test_python_decides_what_is_python_without_a_remark(text: str, valid: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert syntax(text) == {"syntax": valid}


def test_every_figure_is_in_the_catalogue() -> None:
    figures = {
        *exact_match(["x"] * 10, "x"),
        *pass_at_k([True] * 10),
        *chrf("a", "b"),
        *code_bleu("x = y", "x = y"),
        *similarity("a", "b"),
        *syntax("x"),
    }
    assert figures <= METRICS.keys()
    assert {METRICS[name].part_of for name in METRICS.keys() - set(WHOLES)} <= set(WHOLES)
