"""MBPP: sentences about short functions, each with asserts (arXiv 2108.07732), in the sanitized selection or whole.

The paper's parts by number: 1–10 prompts, 11–510 test, 511–600 validation, 601–974 training. As there, the asserts
are part of the question: without them the function's name and arguments would be guesswork. Never tuned on.
"""

from __future__ import annotations

import ast
from pathlib import Path

from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.items import FunctionTests, Item, ItemSet
from peft_tuning.data.datasets.rows import DataRow, read_rows
from peft_tuning.data.datasets.sources import DataLocations
from peft_tuning.data.examples import IntentExample

FILES = ("sanitized-mbpp.json", "mbpp.jsonl")
TEST, PROMPTS = range(11, 511), range(1, 11)
ANSWER_TOKENS = 256


def load(places: DataLocations) -> ItemSet:
    """The test part; the prompts' part as the pool. NotFound without a file, InvalidInput for a wrong one."""
    path = find(places)
    rows = {int(str(row.values.get("task_id", 0))): row for row in read_rows(path)}
    items = tuple(_item(rows[number]) for number in sorted(rows) if number in TEST)
    if not items:
        raise InvalidInput(f"{path} has no problem of MBPP's test part (11 to 510)", fix="Fetch the file again")
    pool = tuple(_item(rows[number]).example for number in sorted(rows) if number in PROMPTS)
    return ItemSet(
        name="mbpp",
        part="test",
        items=items,
        pool=tuple(each for each in pool if isinstance(each, IntentExample)),
        max_tokens=ANSWER_TOKENS,
        licence="CC-BY-4.0",
        provenance=f"MBPP, {path.name} as published; numbers 11 to 510",
    )


def find(places: DataLocations) -> Path:
    """Where a file is, the sanitized one first; raises NotFound that says where to put it."""
    for folder in (places.data, places.environment, places.cache):
        if folder is None:
            continue
        if folder.is_file():
            return folder
        for name in FILES:
            for candidate in (folder / name, folder / "mbpp" / name):
                if candidate.is_file():
                    return candidate
    raise NotFound(
        f"neither {FILES[0]} nor {FILES[1]} is to be found",
        fix="Put one into a folder `mbpp` of PEFT_DAEMON_DATA, or give it with `--data`",
    )


def _item(row: DataRow) -> Item:
    question = row.text("prompt" if "prompt" in row.values else "text").strip()
    asserts = [line.replace("\r\n", "\n") for line in _texts(row, "test_list")]
    imports = _texts(row, "test_imports") if "test_imports" in row.values else [row.text("test_setup_code", default="")]
    code = row.text("code").replace("\r\n", "\n").strip()
    entry_point = _entry_point(code, "\n".join(asserts))
    if entry_point is None:
        raise row.wrong("test_list", "calls no function that `code` defines")
    setup = "\n".join(line for line in imports if line.strip())
    body = "\n".join(f"    {line}" for text in asserts for line in text.split("\n"))
    shown = "\n".join(asserts)
    return Item(
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
    """The function that is tested: defined by the reference, called by the asserts."""
    try:
        defined = [node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        called = {node.id for node in ast.walk(ast.parse(asserts)) if isinstance(node, ast.Name)}
    except SyntaxError:
        return None
    return next((name for name in defined if name in called), None)


def _texts(row: DataRow, field: str) -> list[str]:
    values = row.values.get(field)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise row.wrong(field, "should be a list of texts")
    return values
