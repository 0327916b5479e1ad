"""Conala: sentences about Python with one-line answers, from Stack Overflow, in DocPrompting's split by post.

Yin et al. 2018 (1805.08949), re-split by Zhou et al. 2023 (2207.05987): 2,135 / 201 / 543. That is the split of the
study; the parts are kept whole, so that figures can be compared. The original split of 2,379 / 500 is not read.
"""

from __future__ import annotations

from collections import Counter

from peft_core.errors import InvalidInput
from peft_tuning.data.datasets.rows import DataRow, read_rows
from peft_tuning.data.datasets.sources import (
    DataLocations,
    DataSetEntry,
    DataSetFile,
    DataSetFiles,
    HubFile,
    HubRepository,
    find,
)
from peft_tuning.data.examples import DataSet, IntentExample, drop_overlap

SIZES = {"train": 2135, "validation": 201, "test": 543}
LICENCE = "CC-BY-SA-4.0 (text from Stack Overflow; the hub's card says MIT)"
FIELDS = ("nl", "cmd", "question_id")


def _part(split: str) -> DataSetFile:
    return DataSetFile(
        names=(f"conala-{split}.jsonl", f"cmd_{split}.oracle_man.full.json"),
        fields=FIELDS,
        hub=HubFile(file=f"conala-{split}.jsonl"),
    )


FILES = DataSetFiles(
    id="conala",
    folders=("conala_docprompting", "docprompting-conala"),
    parts={"train": _part("train"), "validation": _part("dev"), "test": _part("test")},
    repository=HubRepository(id="neulab/docprompting-conala", commit="48df7abf0f64f9279b4ee04386272eb9dc89ef89"),
)


def load(locations: DataLocations, seed: int) -> DataSet:
    """Load the published split (``seed`` is not used); raises InvalidInput if a part has another size."""
    found = find(FILES, locations)
    dropped: Counter[str] = Counter()
    parts, posts = {}, {}
    for split, path in found.files.items():
        rows = list(read_rows(path))
        if len(rows) != SIZES[split]:
            raise InvalidInput(
                f"{path} has {len(rows)} rows",
                why=f"the published {split} part has {SIZES[split]}",
                fix="Fetch the file again; other data can be used as FILE.jsonl with intent and code",
            )
        parts[split] = [_example(row, split) for row in rows]
        posts[split] = {_post(row) for row in rows}
    held_out = (*parts["validation"], *parts["test"])
    train = drop_overlap(parts["train"], held_out, dropped, "also in validation or test")
    shared = len(posts["validation"] & posts["test"])
    leaked = len(posts["train"] & (posts["validation"] | posts["test"]))
    return DataSet(
        name="conala",
        train=tuple(train),
        validation=tuple(parts["validation"]),
        test=tuple(parts["test"]),
        dropped=dict(dropped),
        licence=LICENCE,
        provenance=(
            f"Conala, DocPrompting re-split as published. {found.describe()}. Posts shared by validation and test: "
            f"{shared}; by train and the two: {leaked}. Rows repeated within a part are kept"
        ),
        prompt_tokens=64,
        response_tokens=64,
    )


def _example(row: DataRow, split: str) -> IntentExample:
    intent, code = row.text("nl"), row.text("cmd")
    for field, value in (("nl", intent), ("cmd", code)):
        if not value.strip():
            raise row.error(field, "is empty")
    return IntentExample(id=f"conala/{split}/{row.number}", intent=intent, code=code)


def _post(row: DataRow) -> str:
    """Return the id of the Stack Overflow post: the part before the dash."""
    return row.number_or_text("question_id").partition("-")[0]


ENTRY = DataSetEntry(
    id="conala",
    summary="sentence to one line of Python, from Stack Overflow",
    licence=LICENCE,
    sizes=SIZES,
    files=(FILES,),
    load=load,
)
