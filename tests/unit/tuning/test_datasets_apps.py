"""APPS rows as the hub has them: JSON inside text, empty text, missing code, numbers of thousands of digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peft_core.errors import InvalidInput
from peft_tuning.data.datasets import apps
from peft_tuning.data.datasets.apps import InputForm, ProblemTests, parse_problem, read_problems
from peft_tuning.data.datasets.rows import DataRow
from peft_tuning.data.datasets.sources import DataLocations
from peft_tuning.data.examples import DataSet, IntentExample


def row(number: int = 0, **changes: object) -> dict[str, Any]:
    return {
        "id": number,
        "question": f"Print {number}.",
        "solutions": json.dumps([f"print({number})"]),
        "input_output": json.dumps({"inputs": ["1\n"], "outputs": ["1\n"]}),
        "difficulty": "interview",
        "url": "https://example.org",
        "starter_code": "",
    } | changes


def read(values: dict[str, Any]) -> Any:
    return parse_problem(DataRow(Path("train.jsonl"), 3, values))


def load(folder: Path, **files: list[dict[str, Any]]) -> DataSet:
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(values) + "\n" for values in rows))
    return apps.load(DataLocations(cache=folder / "cache", data=folder), 42)


def test_a_program_reads_and_writes() -> None:
    found = read(row(7))
    assert (found.id, found.solutions) == ("7", ("print(7)",))
    assert found.tests == ProblemTests(form=InputForm.STDIN, inputs=("1\n",), outputs=("1\n",))
    assert found.prompt == "Print 7.\n\nThe code needs to read from and write to standard IO."


def test_a_function_gets_its_signature() -> None:
    tests = json.dumps({"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]})
    found = read(row(input_output=tests, starter_code="def add(a, b):\n\t"))
    assert found.tests == ProblemTests(form=InputForm.ARGUMENTS, inputs=([1, 2],), outputs=(3,), function="add")
    assert found.prompt == "Print 0.\n\nThe code needs to use the provided function signature.\n\ndef add(a, b):\n\t"


def test_a_function_without_starter_code_is_named() -> None:
    found = read(row(input_output=json.dumps({"fn_name": "add", "inputs": [], "outputs": []}), starter_code=None))
    assert found.prompt.endswith("use the provided function signature.\n\nFunction name: add")


def test_starter_code_of_a_program_does_not_make_it_a_function() -> None:
    prompt = read(row(starter_code="def main():\n    pass")).prompt
    assert "standard IO" in prompt
    assert prompt.endswith("def main():\n    pass")


@pytest.mark.parametrize("empty", ["", "  ", None])
def test_empty_fields_mean_that_there_is_nothing(empty: str | None) -> None:
    found = read(row(solutions=empty, input_output=empty, starter_code=empty, url=empty))
    assert (found.solutions, found.tests, found.starter_code) == ((), None, "")


def test_numbers_longer_than_python_prints_are_read() -> None:
    tests = '{"inputs": [[' + "9" * 6000 + ']], "outputs": [-1e5], "fn_name": "f"}'
    assert read(row(input_output=tests)).tests.inputs[0][0] == 10**6000 - 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"solutions": "[1"}, "solutions"),
        ({"solutions": '{"a": 1}'}, "solutions"),
        ({"solutions": "[1]"}, "solutions"),
        ({"solutions": ["print()"]}, "solutions"),
        ({"input_output": "[]"}, "input_output"),
        ({"input_output": '{"inputs": "1", "outputs": "2"}'}, "input_output"),
        ({"input_output": '{"inputs": [], "outputs": [], "fn_name": 3}'}, "input_output"),
        ({"difficulty": "hard"}, "difficulty"),
        ({"question": None}, "question"),
        ({"id": None}, "id"),
    ],
)
def test_a_bad_field_is_named_with_file_and_row(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput, match=rf"train\.jsonl, row 3, field '{field}'"):
        read(row(**changes))


def test_tests_that_do_not_pair_up_are_not_used_and_said(tmp_path: Path) -> None:
    tests = json.dumps({"fn_name": "f", "inputs": [[1], [2]], "outputs": [1]})
    found = read(row(5, input_output=tests))
    assert (found.tests.inputs, found.tests.outputs, found.tests.function) == ((), (), "f")
    assert (
        "unusable tests: train/5 (2 inputs and 1 outputs)"
        in load(tmp_path, train=[row(5, input_output=tests)]).provenance
    )


def test_the_first_solution_that_is_python_3_is_trained_on(tmp_path: Path) -> None:
    solutions = json.dumps(["print 1", "", "print(1)\n", "print(2)"])
    found = load(tmp_path, train=[row(solutions=solutions)])
    assert [example.code for example in found.train if isinstance(example, IntentExample)] == ["print(1)"]


def test_what_cannot_be_trained_on_is_counted(tmp_path: Path) -> None:
    rows = [
        row(1),
        row(2, solutions=""),
        row(3, solutions='["print 3"]'),
        row(4, question=" "),
        row(5, question="Print 1.", solutions='["print(1)"]'),
        row(6),
    ]
    found = load(tmp_path, train=rows, test=[row(0, question="Print\n6. ", solutions="")])
    assert found.dropped == {
        "no solution": 1,
        "no solution parses as Python": 1,
        "empty": 1,
        "duplicate": 1,
        "also in validation or test": 1,
    }
    assert [example.id for example in found.train] == ["apps/train/1"]
    assert [(e.id, e.code) for e in found.test if isinstance(e, IntentExample)] == [("apps/test/0", "")]


def test_train_is_split_nine_to_one_and_test_is_the_first_of_each_difficulty(tmp_path: Path) -> None:
    test = [row(n, difficulty="competition" if n % 3 else "interview", question=f"Test {n}") for n in range(900)]
    found = load(tmp_path, train=[row(n) for n in range(500)], test=test)
    assert (len(found.train), len(found.validation), len(found.test)) == (450, 50, 500)
    expected = [n for n in range(900) if n % 3 == 0][:250] + [n for n in range(900) if n % 3][:250]
    assert [int(example.id.rpartition("/")[2]) for example in found.test] == sorted(expected)


def test_a_folder_without_metadata_is_named(tmp_path: Path) -> None:
    (tmp_path / "0001").mkdir()
    (tmp_path / "0001/question.txt").write_text("Print 1.")
    with pytest.raises(InvalidInput, match=r"metadata\.json"):
        list(read_problems(tmp_path))
