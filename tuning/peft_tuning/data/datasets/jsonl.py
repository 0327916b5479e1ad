"""A user's own FILE.jsonl: one object per line, ``intent`` and ``code``, or ``prefix``, ``suffix`` and ``middle``.

Rows as other tools write them (chats, instructions with outputs, prompts with completions) are read as ``intent`` and
``code``; of an answer with a fenced block, the block is the code. Optional: ``language`` (python), ``path`` and
``kind`` for holes, ``weight`` (1), and ``split`` (train, validation, test) on every row or on none. Without it a tenth
is held out by seed. Fields not named here are ignored.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

from peft_core.errors import InvalidInput, NotFound
from peft_tuning.data.datasets.rows import DataRow, read_rows
from peft_tuning.data.datasets.sources import LocatedFiles
from peft_tuning.data.examples import (
    DataSet,
    Example,
    FillExample,
    HoleKind,
    IntentExample,
    drop_duplicates,
    drop_overlap,
    hold_out,
)

ENDINGS = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz", ".parquet", ".csv", ".tsv")
"""Ends of the files' names, in lower case."""
VALIDATION_SHARE = 0.1
SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "test": "test"}
"""Accepted names of a split."""
_OWN_FIELDS = frozenset({"intent", "code", "prefix", "suffix", "middle"})
_CHATS = ("messages", "conversations")
_SENTENCES = ("instruction", "prompt", "question", "query")
_ANSWERS = ("output", "completion", "response", "answer", "solution")
_USER, _ASSISTANT = frozenset({"user", "human"}), frozenset({"assistant", "gpt", "model"})
_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)


def load(path: Path, seed: int) -> DataSet:
    """Read, clean and split.

    Raises NotFound, or InvalidInput naming row and field; an empty file gives no examples.
    """
    if not path.is_file():
        raise NotFound(f"there is no file {path}", fix="Give the path of a file with one JSON object per line")
    dropped: Counter[str] = Counter()
    rows = list(read_rows(path))
    marked = [row for row in rows if row.values.get("split") is not None]
    if marked and len(marked) < len(rows):
        unmarked = next(row for row in rows if row.values.get("split") is None)
        raise unmarked.error("split", "is missing; other rows have it")
    parts: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        example = _example(_as_own(row), path.name)
        if _is_empty(example):
            dropped["empty"] += 1
        else:
            parts[_split(row)].append(example)
    test = drop_duplicates(parts["test"], dropped)
    if marked:
        validation = drop_overlap(drop_duplicates(parts["validation"], dropped), test, dropped, "also in test")
        train = drop_overlap(
            drop_duplicates(parts["train"], dropped), (*validation, *test), dropped, "also in validation or test"
        )
        rule = "split as its rows say"
    else:
        validation, train = hold_out(drop_duplicates(parts["train"], dropped), VALIDATION_SHARE, seed)
        rule = f"a tenth held out by sha256 of question and seed {seed}"
    return DataSet(
        name=path.name,
        train=tuple(train),
        validation=tuple(validation),
        test=tuple(test),
        dropped=dict(dropped),
        provenance=f"{LocatedFiles({'all': path}, 'file').describe()}, {rule}",
    )


def _example(row: DataRow, name: str) -> Example:
    intent = "intent" in row.values or "code" in row.values
    hole = any(field in row.values for field in ("prefix", "suffix", "middle"))
    if intent == hole:
        raise InvalidInput(
            f"{row.file}, row {row.number}, has {'both kinds of' if intent else 'no'} fields that can be learned",
            why="a row has intent and code, or prefix, suffix and middle (docs/datasets.md has more)",
            fix="Correct that row or leave it out",
        )
    id_ = f"{name}/{row.number}"
    language = row.text("language", default="python")
    if intent:
        return IntentExample(
            id=id_, intent=row.text("intent"), code=row.text("code"), language=language, weight=row.weight()
        )
    kind = row.text("kind", default=HoleKind.LINE)
    if kind not in set(HoleKind):
        raise row.error("kind", f"is {kind!r}; it can be {', '.join(HoleKind)}")
    return FillExample(
        id=id_,
        prefix=row.text("prefix"),
        suffix=row.text("suffix"),
        middle=row.text("middle"),
        path=row.text("path", default=""),
        language=language,
        kind=HoleKind(kind),
        weight=row.weight(),
    )


def _as_own(row: DataRow) -> DataRow:
    """Return a row of another tool's with ``intent`` and ``code``; any other row as it is."""
    values = row.values
    if not _OWN_FIELDS.isdisjoint(values):
        return row
    turns: list[tuple[str, str]] = []
    sentence = next((name for name in _SENTENCES if name in values), None)
    answer = next((name for name in _ANSWERS if name in values), None)
    if chat := next((name for name in _CHATS if name in values), None):
        turns = _turns(row, chat)
    elif sentence and answer:
        if isinstance(values[sentence], list):
            turns = _turns(row, sentence) + _turns(row, answer)
        else:
            more = row.text("input", default="")
            asked = row.text(sentence) + (f"\n{more}" if more.strip() else "")
            turns = [("user", asked), ("assistant", row.text(answer))]
    else:
        return row
    # The last answer, and what was asked just before it.
    pairs = [(a[1], b[1]) for a, b in pairwise(turns) if a[0] in _USER and b[0] in _ASSISTANT]
    if not pairs:
        raise row.error(str(chat or sentence), "has no turn of a user that an assistant answers")
    intent, text = pairs[-1]
    fenced = _FENCE.search(text)
    return DataRow(row.file, row.number, {**values, "intent": intent, "code": fenced[1] if fenced else text})


def _turns(row: DataRow, field: str) -> list[tuple[str, str]]:
    turns = row.values[field]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise row.error(field, "should be a list of turns, each an object with role and content")
    found = []
    for turn in turns:
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if not isinstance(role, str) or not isinstance(content, str):
            raise row.error(field, "has a turn without role and content")
        found.append((role, content))
    return found


def _is_empty(example: Example) -> bool:
    if isinstance(example, IntentExample):
        return not example.intent.strip() or not example.code.strip()
    return not example.middle.strip() or not (example.prefix + example.suffix).strip()


def _split(row: DataRow) -> str:
    split = row.text("split", default="train")
    if split not in SPLITS:
        raise row.error("split", f"is {split!r}; it can be {', '.join(SPLITS)}")
    return SPLITS[split]
