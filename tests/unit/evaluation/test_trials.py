"""From an answer to the program that is tested, and from a test's text to arguments and output."""

from __future__ import annotations

import ast

import pytest

from peft_evaluation.sample import FunctionTests
from peft_evaluation.sandbox.execution import same_output
from peft_evaluation.verification import argument_lists, complete_program, trials_of
from peft_tuning.data.datasets.apps import InputForm, ProblemTests

TESTS = FunctionTests(
    entry_point="double",
    preamble="import math\n\n",
    stub='def double(x):\n    """Twice x."""\n',
    check="def check(candidate):\n    assert candidate(2) == 4\n",
)


def doubled(program: str) -> object:
    space: dict[str, object] = {}
    exec(program, space)
    return space["double"](2)  # type: ignore[operator]


@pytest.mark.parametrize(
    "answer",
    [
        "def double(x):\n    return math.prod((x, 2))\n",
        "y = 2\n\ndef double(x):\n    return x * y\n",
        "    return x * 2\n",
        "return x * 2",
        "y = 2\nreturn x * y",
        "y = 2\n    return x * y",
        "if x:\n    return x * 2\nreturn 0",
        "\n    if x:\n        return x * 2\n    return 0\n",
        "y = '\u2028\x85\x1c'\n    return x * (len(y) - 1)",
        "y = '\u2028a'\nreturn x * len(y)",
    ],
)
def test_an_answer_is_the_function_or_its_body(answer: str) -> None:
    assert doubled(complete_program(TESTS, answer)) == 4


def test_an_answer_that_is_no_python_stays_none() -> None:
    with pytest.raises(SyntaxError):
        ast.parse(complete_program(TESTS, "def double(x:\n  return"))


def test_without_a_stub_the_answer_is_the_whole_program() -> None:
    tests = FunctionTests(entry_point="double", preamble="import math", stub="", check="")
    assert complete_program(tests, "return 3") == "import math\nreturn 3"


@pytest.mark.parametrize(
    ("form", "given", "expected"),
    [
        (InputForm.ARGUMENTS, [1, "a"], [[1, "a"]]),
        (InputForm.LINES, "[1, 2]\n3", [[[1, 2], 3], ["[1, 2]", "3"]]),
        (InputForm.LINES, "abc\nde f", [["abc", "de f"]]),
        (InputForm.LINES, "true", [[True], ["true"]]),
        (InputForm.LINES, "4.20", [[4.2], ["4.20"]]),
    ],
)
def test_lines_are_read_with_types_and_as_text(form: InputForm, given: object, expected: list[list[object]]) -> None:
    assert argument_lists(form, given) == expected


def test_every_pair_is_one_trial() -> None:
    tests = ProblemTests(form=InputForm.STDIN, inputs=("1\n", ["2", "3"]), outputs=("1\n", ["2"]))
    assert len(trials_of(tests, "print(input())")) == 2
    assert len(trials_of(TESTS, "return 2 * x")) == 1


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("1  2 \r\n 3", "1 2\n3\n", True),
        ("0.333333333", "0.3333333", True),
        ("0.34", "0.33", False),
        ("2", "2.0", True),
        ("12", "13", False),
        ("10000000000000000001", "10000000000000000002", False),
        ("yes", "Yes", False),
        ("1", "1 1", False),
        ("", "", True),
        ("nan.", "1.0", False),
    ],
)
def test_output_is_compared_word_by_word(printed: str, expected: str, same: bool) -> None:
    assert same_output(printed, expected) is same
