"""CodeBLEU agrees with the package ``codebleu`` 0.7.0 (how: ``fixtures/code_bleu/pairs.py``), and stands any text."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_evaluation.scorers.code_bleu.data_flow import data_flow, match
from peft_evaluation.scorers.code_bleu.score import code_bleu, corpus_code_bleu, parse, strip, syntax_match

PAIRS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "fixtures/code_bleu/parity.json").read_text(encoding="utf-8")
)
NAMES = {
    "codebleu": "codebleu",
    "codebleu-ngram": "ngram_match_score",
    "codebleu-weighted": "weighted_ngram_match_score",
    "codebleu-syntax": "syntax_match_score",
    "codebleu-dataflow": "dataflow_match_score",
}
DEFINED = {
    "": tuple(NAMES),
    "the order of a set": ("codebleu-ngram", "codebleu-weighted", "codebleu-syntax"),
    "the grammar": ("codebleu-ngram", "codebleu-weighted"),
}
"""What has one value by the code alone, by what the rest varies with."""

CHARACTERS = "xyé1=,()[]{}:.+#$\\ \n"
WORDS = ("for", "in", "if", "elif", "else", "while", "def", "lambda", "not", "return")
fragments = st.lists(
    st.sampled_from([*CHARACTERS, "\n  ", "\n\t", "'s'", "f'{x}'", '"""', *(f" {word} " for word in WORDS)]),
    max_size=40,
).map("".join)
texts = st.text(max_size=60) | fragments


def flows(code: str) -> list[Any]:
    return data_flow(parse(code), code)


def test_all_parts_and_their_sum_are_the_package_s() -> None:
    for pair in PAIRS:
        found = code_bleu(pair["candidate"], pair["reference"])
        for name in DEFINED[pair["varies"]]:
            # Where there is no data flow, the package has 0 for it.
            assert found.get(name, 0) == pytest.approx(pair["values"][NAMES[name]], abs=1e-9), (name, pair)


def test_the_value_of_one_pair_is_the_same_as_one_text_and_of_several_matches_are_added_up() -> None:
    for pair in PAIRS[::20]:
        alone = code_bleu(pair["candidate"], pair["reference"])["codebleu"]
        assert corpus_code_bleu([(pair["candidate"], pair["reference"])]) == pytest.approx(alone)
    # By hand. Of the n-grams 3 of 4, 2 of 3, 1 of 2 and 0.1 of 2 match; of the weights of words 0.6 of 2. All shapes
    # match, and the one data flow that there is.
    pairs = [("x = y", "x = y"), ("f(x)", "g(x)")]
    ngram, weighted = (3 / 4 * 2 / 3 * 1 / 2 * 0.05) ** 0.25, (0.6 / 2 * 2 / 3 * 1 / 2 * 0.05) ** 0.25
    assert corpus_code_bleu(pairs) == pytest.approx((ngram + weighted + 2) / 4)
    assert corpus_code_bleu([]) == 0


def test_almost_all_pairs_have_values_that_are_defined_by_the_code_alone() -> None:
    kinds = Counter(pair["varies"] for pair in PAIRS)
    assert kinds[""] >= 350
    assert kinds["the order of a set"] <= 5 and kinds["the grammar"] <= 28
    for name in NAMES.values():
        assert len({pair["values"][name] for pair in PAIRS if not pair["varies"]}) >= 30


def test_code_without_data_flow_is_scored_on_three_parts_and_given_the_fourth() -> None:
    found = code_bleu("print('hello')", "print('hello')")
    assert "codebleu-dataflow" not in found
    assert found["codebleu"] == pytest.approx(0.5554, abs=1e-4)


def test_another_sign_costs_little() -> None:
    found = code_bleu("def add(a, b):\n    return a - b", "def add(a, b):\n    return a + b")
    assert found["codebleu"] == pytest.approx(0.8252, abs=1e-4)
    assert found["codebleu-dataflow"] == 1


def test_two_lines_that_have_nothing_to_do_with_each_other_get_half() -> None:
    assert code_bleu("os.getcwd()", "values.sort()")["codebleu"] == 0.5


@given(texts, texts)
def test_any_text_has_all_figures_within_their_range(candidate: str, reference: str) -> None:
    found = code_bleu(candidate, reference)
    assert set(NAMES) - {"codebleu-dataflow"} <= found.keys() <= set(NAMES)
    assert all(0 <= value <= 1 for value in found.values())


@given(texts)
def test_code_agrees_with_itself_in_each_part_that_there_is(code: str) -> None:
    found = code_bleu(code, code)
    assert found["codebleu-syntax"] == 1
    assert found.get("codebleu-dataflow", 1) == 1
    if len(code.split()) >= 5:  # With fewer words there are no four in a row, or less weight than one match has.
        assert found["codebleu"] == found["codebleu-ngram"] == found["codebleu-weighted"] == 1


@pytest.mark.parametrize("code", ["-" * 40_000 + "1", "(" * 5_000 + "x" + ")" * 5_000, "x = " + "a + " * 5_000 + "b"])
def test_code_of_any_depth_is_compared(code: str) -> None:
    assert code_bleu(code, code)["codebleu-syntax"] == 1


def test_loops_in_loops_do_not_double_the_time_each() -> None:
    code = "".join(f"{' ' * depth}for a in b:\n" for depth in range(40)) + " " * 40 + "c = a"
    assert code_bleu(code, code)["codebleu-dataflow"] == 1


def test_a_shape_is_one_of_kinds_and_fields_without_names() -> None:
    def share(reference: str, candidate: str) -> float:
        return syntax_match(parse(reference), parse(candidate))

    assert share("total = price * count", "a = b / c") == 1
    # Module and statement differ, the call and its arguments are the same.
    assert share("x = f(y)", "f(y)") == pytest.approx(2 / 5)
    assert share("x = $", "x = ?") == 0


def test_data_flow_is_of_names_in_their_order_whatever_they_are_called() -> None:
    assert flows("c = a + b") == [
        ("var_2", "computedFrom", ("var_0", "var_1")),
        ("var_0", "comesFrom", ()),
        ("var_1", "comesFrom", ()),
    ]
    assert flows("total = first * second") == flows("c = a + b")
    assert flows("a.sort()") == flows("") == flows("def f(): pass") == []


def test_a_name_after_branches_comes_from_all_of_them() -> None:
    origin = ("var_0", "comesFrom", ())
    assert flows("if a:\n    x\nelse:\n    x\ny = x").count(origin) == 2
    assert flows("if a:\n    x\n    x\ny = x").count(origin) == 1


def test_what_a_round_of_a_loop_leaves_reaches_the_next() -> None:
    once, twice = flows("x = y\ny = z"), flows("while a:\n    x = y\n    y = z")
    assert ("var_1", "comesFrom", ("var_1",)) in twice
    assert ("var_1", "comesFrom", ("var_1",)) not in once


def test_code_with_a_broken_statement_has_no_data_flow() -> None:
    assert flows("a.b = 'text'") == []


def test_each_flow_of_the_answer_is_used_once() -> None:
    flow = ("var_0", "comesFrom", ())
    assert match([flow, flow], [flow]) == 0.5
    assert match([flow], [flow, flow]) == 1
    assert match([], [flow]) is None


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("# first\n\nx = y  # second\n", "x = y  "),
        ('def f():\n    """What f does."""\n    return "text"\n', 'def f():\n    return "text"'),
        ("'left'\nx = 'right'\n", "x = 'right'"),
        ("(\n# kept", "(\n# kept"),
        ("if a:\n    b\n  c  # kept", "if a:\n    b\n  c  # kept"),
    ],
)
def test_comments_and_docstrings_do_not_count_where_the_rest_has_tokens(code: str, expected: str) -> None:
    assert strip(code) == expected
