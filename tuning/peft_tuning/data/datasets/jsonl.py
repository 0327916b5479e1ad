"""A user's own data: rows with ``intent`` and ``code``, or with ``prefix``, ``suffix`` and ``middle``.

They come from a FILE.jsonl, one object per line, from the other kinds of files of ``rows``, or from a folder
(``folders``). Rows as other tools write them (chats, instructions with outputs, prompts with completions) are read as
``intent`` and ``code``; of an answer with a fenced block, the block is the code. Columns with other names can be named.
Optional: ``language`` (python), ``path`` and ``kind`` for holes, ``weight`` (1), and ``split`` (train, validation,
test) on every row or on none. Without it a tenth each is validation and test, by a hash of each question. Fields not
named here are ignored.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from peft_core.errors import InvalidInput, NotFound
from peft_tuning.data.datasets.rows import DataRow, read_rows
from peft_tuning.data.datasets.sources import LocatedFiles
from peft_tuning.data.examples import (
    CompletionExample,
    DataSet,
    FillExample,
    HoleKind,
    IntentExample,
    drop_duplicates,
    drop_overlap,
    split_by_hash,
)

ENDINGS = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz", ".parquet", ".csv", ".tsv")
"""Ends of the files' names, in lower case."""
HELD_OUT_SHARE = 0.1
"""Share of the validation part, and of the test, where rows do not say their part."""
SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "test": "test"}
"""Accepted names of a split."""
_OWN_FIELDS = frozenset({"intent", "code", "prefix", "suffix", "middle"})
_CHATS = ("messages", "conversations")
_SENTENCES = (
    *("instruction", "prompt", "question", "query", "nl", "text", "description", "docstring", "problem"),
    *("func_documentation_string", "title"),
)
"""Names of columns with sentences, the surest first; ``intent`` is meant."""
_ANSWERS = (
    *("output", "completion", "response", "answer", "solution", "cmd", "snippet", "canonical_solution", "target"),
    *("func_code_string", "code"),
)
"""The same of the code that answers them."""
FIELDS = ("intent", "code", "prefix", "middle", "suffix", "language", "path", "kind", "weight", "split")
"""What a column can be named as."""
_USER, _ASSISTANT = frozenset({"user", "human"}), frozenset({"assistant", "gpt", "model"})
_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class OwnRows:
    """Rows of a user's own, and where they are from."""

    name: str
    origin: str
    """For provenance."""
    rows: tuple[DataRow, ...]
    licence: str = "unknown"
    published_split: bool = False
    """Whether ``split`` is that of a publication: a part that it lacks is then held out of the training part."""
    dropped: Mapping[str, int] = field(default_factory=dict)


def load(path: Path, seed: int, columns: Mapping[str, str] | None = None) -> DataSet:
    """Read, clean and split a file; ``columns`` has names of columns by what they are (``FIELDS``).

    Raises NotFound, or InvalidInput naming row and field; an empty file gives no examples.
    """
    if not path.is_file():
        raise NotFound(f"there is no file {path}", fix="Give the path of a file with one JSON object per line")
    origin = LocatedFiles({"all": path}, "file").describe()
    return data_set(OwnRows(name=path.name, origin=origin, rows=tuple(read_rows(path))), seed, columns)


def data_set(own: OwnRows, seed: int, columns: Mapping[str, str] | None = None) -> DataSet:
    """Make a data set of rows; raises InvalidInput naming row and field."""
    dropped: Counter[str] = Counter(own.dropped)
    marked = [row for row in own.rows if row.values.get("split") is not None]
    if marked and len(marked) < len(own.rows):
        unmarked = next(row for row in own.rows if row.values.get("split") is None)
        raise unmarked.error("split", "is missing; other rows have it")
    parts: dict[str, list[CompletionExample]] = {"train": [], "validation": [], "test": []}
    for row in own.rows:
        row_ = _as_own(_renamed(row, columns or {}))
        example = _example(row_, own.name)
        if _is_empty(example):
            dropped["empty"] += 1
        else:
            parts[_split(row_)].append(example)
    test = drop_duplicates(parts["test"], dropped)
    if marked:
        validation = drop_overlap(drop_duplicates(parts["validation"], dropped), test, dropped, "also in test")
        train = drop_overlap(
            drop_duplicates(parts["train"], dropped), (*validation, *test), dropped, "also in validation or test"
        )
        rule = "split as its rows say"
        if own.published_split and train and not (validation and test):
            train, validation, test = _completed(train, validation, test, seed)
            rule = f"split as published; what that lacks is a tenth of train, by sha256 of question and seed {seed}"
    else:
        train, validation, test = split_by_hash(drop_duplicates(parts["train"], dropped), HELD_OUT_SHARE, seed)
        rule = f"no row says its part: a tenth each is validation and test, by sha256 of question and seed {seed}"
    return DataSet(
        name=own.name,
        train=tuple(train),
        validation=tuple(validation),
        test=tuple(test),
        dropped=dict(dropped),
        licence=own.licence,
        provenance=f"{own.origin}, {rule}",
    )


def _completed(
    train: list[CompletionExample], validation: list[CompletionExample], test: list[CompletionExample], seed: int
) -> tuple[list[CompletionExample], list[CompletionExample], list[CompletionExample]]:
    """Hold out of train the parts that a published split does not have."""
    rest, own_validation, own_test = split_by_hash(train, HELD_OUT_SHARE, seed)
    # The part that is there takes nothing from train.
    rest += own_validation if validation else []
    rest += own_test if test else []
    return rest, validation or own_validation, test or own_test


def _renamed(row: DataRow, columns: Mapping[str, str]) -> DataRow:
    """Return the row with the fields that ``columns`` name; raises InvalidInput where it lacks one."""
    if not columns:
        return row
    for column in columns.values():
        if column not in row.values:
            names = ", ".join(map(repr, row.values))
            raise row.error(column, f"is missing; the row has {names}")
    others = {name: value for name, value in row.values.items() if name not in columns.values()}
    named = {name: row.values[column] for name, column in columns.items()}
    kept = {} if {"intent", "middle"} & set(columns) else others
    return DataRow(row.file, row.number, {**kept, **{"split": row.values.get("split")}, **named})


def _example(row: DataRow, name: str) -> CompletionExample:
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
    own = _OWN_FIELDS.intersection(values)
    if own and not (own == {"code"} and _named(values, _SENTENCES)):  # code beside a sentence of another name
        return row
    turns: list[tuple[str, str]] = []
    sentence, answer = _named(values, _SENTENCES), _named(values, _ANSWERS)
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


def _named(values: Mapping[str, object], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in values), None)


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


def _is_empty(example: CompletionExample) -> bool:
    if isinstance(example, IntentExample):
        return not example.intent.strip() or not example.code.strip()
    return not example.middle.strip() or not (example.prefix + example.suffix).strip()


def _split(row: DataRow) -> str:
    split = row.text("split", default="train")
    if split not in SPLITS:
        raise row.error("split", f"is {split!r}; it can be {', '.join(SPLITS)}")
    return SPLITS[split]
