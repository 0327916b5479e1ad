"""APPS: programming problems in three difficulties, each with solutions and tests (Hendrycks et al., 2105.09938).

Problems are read from the hub's rows, from the original folders, and from a published selection with tests. Rows hold
JSON in text fields (``solutions``, ``input_output``), which may be empty, and whole numbers longer than Python prints.
Running a solution against the tests belongs to evaluation.

Train is split 4,500 / 500 by seed, as the study did; test is the first 250 problems of each difficulty. One solution
per problem is trained on: the first that is Python 3. Problems with more than 1,024 tokens are dropped where tokens are
counted, not here. The pinned test file is 1.3 GB, nearly all of it tests.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path

from peft_core.errors import InvalidInput
from peft_tuning.data.datasets.rows import DataRow, parse_json, parses, read_rows
from peft_tuning.data.datasets.sources import (
    DataLocations,
    DataSetEntry,
    DataSetFile,
    DataSetFiles,
    HubFile,
    HubRepository,
    LocatedFiles,
    find,
)
from peft_tuning.data.examples import DataSet, IntentExample, drop_duplicates, drop_overlap, hold_out

DIFFICULTIES = ("introductory", "interview", "competition")
QUESTION_FILE = "question.txt"
"""A file in every problem folder of the original distribution."""
_DEFINITION = re.compile(r"^\s*def\s+(\w+)\s*\(", re.MULTILINE)
TEST_PER_DIFFICULTY = 250
VALIDATION_SHARE = 0.1
LICENCE = "MIT (problem texts belong to Codeforces, AtCoder, Codewars, Kattis and LeetCode)"
FIELDS = ("id", "question", "solutions", "input_output", "difficulty", "url", "starter_code")


class InputForm(StrEnum):
    """The form of a test's input."""

    STDIN = "stdin"
    """Text for standard input; the output is what is printed."""
    ARGUMENTS = "arguments"
    """A list of arguments; the output is what is returned, in some problems inside a list of one."""
    LINES = "lines"
    """Text with one argument per line, whose types the file does not say; the output is a list of one."""


@dataclass(frozen=True, kw_only=True)
class ProblemTests:
    """Inputs and the outputs they must give, in pairs."""

    form: InputForm
    inputs: tuple[object, ...]
    outputs: tuple[object, ...]
    function: str | None = None
    """The function to call; None when standard input and output are used."""
    flaw: str = ""
    """Why the tests in the file cannot be used; empty if they can."""


@dataclass(frozen=True, kw_only=True)
class AppsProblem:
    """One problem; empty text and None for what the file does not have."""

    id: str
    question: str
    difficulty: str
    """One of ``DIFFICULTIES``."""
    starter_code: str = ""
    solutions: tuple[str, ...] = ()
    tests: ProblemTests | None = None
    url: str = ""

    @property
    def prompt(self) -> str:
        """The study's prompt: the question, how to read input and write output, and the starter code.

        If the tests call a function, the prompt asks for one, and names it if there is no starter code.
        """
        function = self.tests.function if self.tests else _last_function(self.starter_code)
        signature = self.starter_code.strip("\n") or (f"Function name: {function}" if function else "")
        how = "use the provided function signature" if function else "read from and write to standard IO"
        return "\n\n".join(part for part in (self.question.strip(), f"The code needs to {how}.", signature) if part)


def read_problems(path: Path) -> Iterator[AppsProblem]:
    """Yield all problems of a file, or of a folder of problem folders, in order; raises InvalidInput."""
    if path.is_dir():
        for folder in sorted(file.parent for file in path.glob(f"*/{QUESTION_FILE}")):
            yield parse_problem(_folder_row(folder))
    else:
        for row in read_rows(path):
            yield parse_problem(row)


def parse_problem(row: DataRow) -> AppsProblem:
    """Read a row of ``codeparrot/apps`` (``id`` in files, ``problem_id`` from its loader) or of the selection."""
    selection = "description" in row.values
    difficulty = row.text("difficulty")
    if difficulty not in DIFFICULTIES:
        raise row.error("difficulty", f"is {difficulty!r}; it can be {', '.join(DIFFICULTIES)}")
    starter_code = row.text("starter_code", default="")
    return AppsProblem(
        id=row.number_or_text("problem_id" if "problem_id" in row.values else "id"),
        question=row.text("description" if selection else "question"),
        difficulty=difficulty,
        starter_code=starter_code if starter_code.strip() else "",
        solutions=() if selection else _solutions(row),
        tests=_selected_tests(row, starter_code) if selection else _tests(row),
        url=row.text("url", default=""),
    )


def _solutions(row: DataRow) -> tuple[str, ...]:
    value = _embedded(row, "solutions")
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise row.error("solutions", "should hold a JSON list of texts")
    return tuple(item for item in value if item.strip())


def _tests(row: DataRow) -> ProblemTests | None:
    value = _embedded(row, "input_output")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise row.error("input_output", "should hold a JSON object with inputs and outputs")
    inputs, outputs, function = value.get("inputs", []), value.get("outputs", []), value.get("fn_name") or None
    if not isinstance(inputs, list) or not isinstance(outputs, list) or not isinstance(function, str | None):
        raise row.error("input_output", "inputs and outputs should be lists, fn_name text")
    form = InputForm.ARGUMENTS if function else InputForm.STDIN
    if len(inputs) != len(outputs):
        # The solutions can still be learned, but it is not known which output belongs to which input.
        flaw = f"{len(inputs)} inputs and {len(outputs)} outputs"
        return ProblemTests(form=form, inputs=(), outputs=(), function=function, flaw=flaw)
    if not inputs and function is None:
        return None
    return ProblemTests(form=form, inputs=tuple(inputs), outputs=tuple(outputs), function=function)


def _selected_tests(row: DataRow, starter_code: str) -> ProblemTests | None:
    cases = row.values.get("test_list") or []
    if not isinstance(cases, list) or not all(isinstance(c, dict) and "input" in c and "output" in c for c in cases):
        raise row.error("test_list", "should be a list of objects with input and output")
    if not cases:
        return None
    function = _last_function(starter_code)
    return ProblemTests(
        form=InputForm.LINES if function else InputForm.STDIN,
        inputs=tuple(case["input"] for case in cases),
        outputs=tuple(case["output"] for case in cases),
        function=function,
    )


def _embedded(row: DataRow, field: str) -> object:
    """Decode the JSON in a text field; None if the field is empty, null or missing."""
    text = row.text(field, default="")
    if not text.strip():
        return None
    try:
        return parse_json(text)
    except ValueError as error:
        raise row.error(field, f"holds text that is not JSON ({error})") from None


def _folder_row(folder: Path) -> DataRow:
    """Return a problem folder as a row like those on the hub."""
    values: dict[str, object] = {"problem_id": folder.name, "difficulty": "", "url": ""}
    names = {
        "question": QUESTION_FILE,
        "solutions": "solutions.json",
        "input_output": "input_output.json",
        "starter_code": "starter_code.py",
    }
    for field, name in names.items():
        values[field] = _read(folder / name)
    metadata = DataRow(folder / "metadata.json", 1, {"metadata": _read(folder / "metadata.json")})
    facts = _embedded(metadata, "metadata")
    if not isinstance(facts, dict):
        raise metadata.error("metadata", "should be a JSON object with difficulty and url")
    return DataRow(folder, 1, values | {"difficulty": facts.get("difficulty"), "url": facts.get("url")})


def _read(path: Path) -> str:
    """Read a file; empty if it is missing, as solutions and starter code are for some problems."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}", why=str(error), fix="Correct or remove it") from None


def _last_function(starter_code: str) -> str | None:
    """Return the name of the last function that begins in the starter code; helpers come first."""
    names = _DEFINITION.findall(starter_code)
    return str(names[-1]) if names else None


FILES = DataSetFiles(
    id="apps",
    folders=("APPS",),
    parts={
        "train": DataSetFile(
            names=("train.jsonl", "train.jsonl.gz", "train.parquet", "train"),
            fields=FIELDS,
            hub=HubFile(
                file="train.jsonl",
                bytes=107_101_272,
                sha256="45e82ef22ed8e7c0c04d881a21b923e9dd233157896b0b8d5b3493e887499cae",
            ),
            required=False,
        ),
        "test": DataSetFile(
            names=("test.jsonl", "test.jsonl.gz", "test.parquet", "test", "selected150.jsonl"),
            fields=FIELDS,
            hub=HubFile(
                file="test.jsonl",
                bytes=1_292_436_853,
                sha256="5b003a65ac40feb47dd5eaec267a767a6fc435bdcfa68ff715fe869f948e760c",
            ),
            required=False,
        ),
    },
    repository=HubRepository(id="codeparrot/apps", commit="21e74ddf8de1a21436da12e3e653065c5213e9d1"),
    unnamed="train",
    marker=QUESTION_FILE,
)


def load(locations: DataLocations, seed: int) -> DataSet:
    """Load the parts whose files are found: train and validation from one file, test from the other."""
    found = find(FILES, locations)
    dropped: Counter[str] = Counter()
    flawed: list[str] = []
    tests = _noting_flaws(test_problems(found), "test", flawed)
    test = [_example(problem, "test", problem.solutions) for problem in tests]
    problems = _noting_flaws(train_problems(found), "train", flawed)
    train = drop_duplicates(_trainable(problems, dropped), dropped)
    train = drop_overlap(train, test, dropped, "also in validation or test")
    validation, train = hold_out(train, VALIDATION_SHARE, seed)
    return DataSet(
        name="apps",
        train=tuple(train),
        validation=tuple(validation),
        test=tuple(test),
        dropped=dict(dropped),
        licence=LICENCE,
        provenance=(
            f"APPS. {found.describe()}. Validation: a tenth of train, by sha256 of question and seed {seed}; test: the "
            f"first {TEST_PER_DIFFICULTY} problems of each difficulty; the first solution that is Python 3"
            + (f"; unusable tests: {', '.join(flawed)}" if flawed else "")
        ),
        prompt_tokens=1024,
        response_tokens=1024,
    )


def train_problems(found: LocatedFiles) -> Iterator[AppsProblem]:
    """Yield the problems of the train file, in its order; none without that file."""
    return read_problems(found.files["train"]) if "train" in found.files else iter(())


def test_problems(found: LocatedFiles) -> Iterator[AppsProblem]:
    """Yield the first problems of each difficulty of the test file, in its order, with their tests."""
    if "test" not in found.files:
        return
    counts = dict.fromkeys(DIFFICULTIES, TEST_PER_DIFFICULTY)
    for problem in read_problems(found.files["test"]):
        if counts[problem.difficulty] > 0:
            counts[problem.difficulty] -= 1
            yield problem
        if not any(counts.values()):
            return


def _noting_flaws(problems: Iterable[AppsProblem], split: str, flawed: list[str]) -> Iterator[AppsProblem]:
    for problem in problems:
        if problem.tests and problem.tests.flaw:
            flawed.append(f"{split}/{problem.id} ({problem.tests.flaw})")
        yield problem


def _trainable(problems: Iterable[AppsProblem], dropped: Counter[str]) -> Iterator[IntentExample]:
    for problem in problems:
        if not problem.question.strip():
            dropped["empty"] += 1
        elif not problem.solutions:
            dropped["no solution"] += 1
        elif (solution := next(filter(parses, problem.solutions), None)) is None:
            dropped["no solution parses as Python"] += 1
        else:
            yield _example(problem, "train", (solution,))


def _example(problem: AppsProblem, split: str, solutions: tuple[str, ...]) -> IntentExample:
    """Make the example of a problem; its code is empty without a solution, as for many test problems."""
    code = next(chain(solutions, ("",)))
    return IntentExample(id=f"apps/{split}/{problem.id}", intent=problem.prompt, code=code.strip("\n"))


ENTRY = DataSetEntry(
    id="apps",
    summary="programming problem to a whole program, with tests",
    licence=LICENCE,
    sizes={"train": 4500, "validation": 500, "test": TEST_PER_DIFFICULTY * len(DIFFICULTIES)},
    files=(FILES,),
    load=load,
)
