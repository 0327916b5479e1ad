"""APPS problems as files have them: the hub's rows, the original folders, and a published selection with tests.

Hendrycks et al. 2021 (2105.09938). Rows hold JSON in text fields (``solutions``, ``input_output``), which may be empty,
and whole numbers longer than Python prints. Reading and checking only; what is trained on is decided in ``apps``,
running a solution against the tests belongs to evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from peft_core.errors import InvalidInput
from peft_tuning.datasets.rows import Row, parse_json, read_rows

DIFFICULTIES = ("introductory", "interview", "competition")
QUESTION_FILE = "question.txt"
"""In every folder of the original distribution."""
_DEFINITION = re.compile(r"^\s*def\s+(\w+)\s*\(", re.MULTILINE)


class InputForm(StrEnum):
    """What a test's input is."""

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
    """Why there are no pairs although the file has tests."""


@dataclass(frozen=True, kw_only=True)
class Problem:
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
        """The study's prompt: the question, how input comes and output goes, the starter code.

        A function is asked for where the tests call one; where its starter code is missing, its name is given.
        """
        function = self.tests.function if self.tests else _last_function(self.starter_code)
        signature = self.starter_code.strip("\n") or (f"Function name: {function}" if function else "")
        how = "use the provided function signature" if function else "read from and write to standard IO"
        return "\n\n".join(part for part in (self.question.strip(), f"The code needs to {how}.", signature) if part)


def read_problems(path: Path) -> Iterator[Problem]:
    """All problems of a file or of a folder of problem folders, in order. InvalidInput for what cannot be read."""
    if path.is_dir():
        for folder in sorted(file.parent for file in path.glob(f"*/{QUESTION_FILE}")):
            yield problem(_folder_row(folder))
    else:
        for row in read_rows(path):
            yield problem(row)


def problem(row: Row) -> Problem:
    """A row of ``codeparrot/apps`` (``id`` in its files, ``problem_id`` from its loader) or of the selection."""
    selection = "description" in row.values
    difficulty = row.text("difficulty")
    if difficulty not in DIFFICULTIES:
        raise row.wrong("difficulty", f"is {difficulty!r}; it can be {', '.join(DIFFICULTIES)}")
    starter_code = row.text("starter_code", default="")
    return Problem(
        id=row.number_or_text("problem_id" if "problem_id" in row.values else "id"),
        question=row.text("description" if selection else "question"),
        difficulty=difficulty,
        starter_code=starter_code if starter_code.strip() else "",
        solutions=() if selection else _solutions(row),
        tests=_selected_tests(row, starter_code) if selection else _tests(row),
        url=row.text("url", default=""),
    )


def _solutions(row: Row) -> tuple[str, ...]:
    value = _embedded(row, "solutions")
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise row.wrong("solutions", "should hold a JSON list of texts")
    return tuple(item for item in value if item.strip())


def _tests(row: Row) -> ProblemTests | None:
    value = _embedded(row, "input_output")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise row.wrong("input_output", "should hold a JSON object with inputs and outputs")
    inputs, outputs, function = value.get("inputs", []), value.get("outputs", []), value.get("fn_name") or None
    if not isinstance(inputs, list) or not isinstance(outputs, list) or not isinstance(function, str | None):
        raise row.wrong("input_output", "inputs and outputs should be lists, fn_name text")
    form = InputForm.ARGUMENTS if function else InputForm.STDIN
    if len(inputs) != len(outputs):
        # Its solutions can be learned all the same; which output belongs to which input is anybody's guess.
        flaw = f"{len(inputs)} inputs and {len(outputs)} outputs"
        return ProblemTests(form=form, inputs=(), outputs=(), function=function, flaw=flaw)
    if not inputs and function is None:
        return None
    return ProblemTests(form=form, inputs=tuple(inputs), outputs=tuple(outputs), function=function)


def _selected_tests(row: Row, starter_code: str) -> ProblemTests | None:
    cases = row.values.get("test_list") or []
    if not isinstance(cases, list) or not all(isinstance(c, dict) and "input" in c and "output" in c for c in cases):
        raise row.wrong("test_list", "should be a list of objects with input and output")
    if not cases:
        return None
    function = _last_function(starter_code)
    return ProblemTests(
        form=InputForm.LINES if function else InputForm.STDIN,
        inputs=tuple(case["input"] for case in cases),
        outputs=tuple(case["output"] for case in cases),
        function=function,
    )


def _embedded(row: Row, field: str) -> object:
    """The JSON inside a text field; None where it is empty, null or missing."""
    text = row.text(field, default="")
    if not text.strip():
        return None
    try:
        return parse_json(text)
    except ValueError as error:
        raise row.wrong(field, f"holds text that is not JSON ({error})") from None


def _folder_row(folder: Path) -> Row:
    """A problem folder as the row it would be on the hub."""
    values: dict[str, object] = {"problem_id": folder.name, "difficulty": "", "url": ""}
    names = {
        "question": QUESTION_FILE,
        "solutions": "solutions.json",
        "input_output": "input_output.json",
        "starter_code": "starter_code.py",
    }
    for field, name in names.items():
        values[field] = _read(folder / name)
    metadata = Row(folder / "metadata.json", 1, {"metadata": _read(folder / "metadata.json")})
    facts = _embedded(metadata, "metadata")
    if not isinstance(facts, dict):
        raise metadata.wrong("metadata", "should be a JSON object with difficulty and url")
    return Row(folder, 1, values | {"difficulty": facts.get("difficulty"), "url": facts.get("url")})


def _read(path: Path) -> str:
    """The file's text; empty when it is missing, as solutions and starter code are for some problems."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}", why=str(error), fix="Correct or remove it") from None


def _last_function(starter_code: str) -> str | None:
    """The last function whose beginning is given: helpers come first."""
    names = _DEFINITION.findall(starter_code)
    return str(names[-1]) if names else None
