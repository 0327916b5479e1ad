"""A user's own FILE.jsonl: one object per line, ``intent`` and ``code``, or ``prefix``, ``suffix`` and ``middle``.

Optional: ``language`` (python), ``path`` and ``kind`` for holes, and ``split`` (train, validation, test) on every row
or on none. Without it a tenth is held out by seed. Fields not named here are ignored.
"""

from __future__ import annotations

from collections import Counter
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

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
VALIDATION_SHARE = 0.1
SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "test": "test"}
"""Accepted names of a split."""


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
        example = _example(row, path.name)
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
            why="a row has intent and code, or prefix, suffix and middle",
            fix="Correct that row or leave it out",
        )
    id_ = f"{name}/{row.number}"
    language = row.text("language", default="python")
    if intent:
        return IntentExample(id=id_, intent=row.text("intent"), code=row.text("code"), language=language)
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
    )


def _is_empty(example: Example) -> bool:
    if isinstance(example, IntentExample):
        return not example.intent.strip() or not example.code.strip()
    return not example.middle.strip() or not (example.prefix + example.suffix).strip()


def _split(row: DataRow) -> str:
    split = row.text("split", default="train")
    if split not in SPLITS:
        raise row.error("split", f"is {split!r}; it can be {', '.join(SPLITS)}")
    return SPLITS[split]
