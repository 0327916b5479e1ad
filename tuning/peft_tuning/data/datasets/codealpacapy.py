"""CodeAlpacaPy: the Python part of CodeAlpaca-20k, instructions answered by a language model.

The study used 2,192 / 314 / 628 rows. Its rule was not published: rows without input whose output parses as Python are
3,136, two more than its total. We declare our own split of the study's sizes: the empty answer is dropped, and the one
row that is then too many stays out. Which row goes where depends on the instruction and the seed, not on the order of
the file. The data's own licence forbids commercial use, whatever a hub's card says.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter

from peft_tuning.data.datasets.rows import parses, read_rows
from peft_tuning.data.datasets.sources import (
    DataLocations,
    DataSetEntry,
    DataSetFile,
    DataSetFiles,
    HubFile,
    HubRepository,
    find,
)
from peft_tuning.data.examples import DataSet, IntentExample, drop_duplicates, drop_overlap, stable_order, take

SIZES = {"train": 2192, "validation": 314, "test": 628}
TOTAL = sum(SIZES.values())
LICENCE = "CC-BY-NC-4.0 (not for commercial use: do not ship adapters tuned on it)"

FILES = DataSetFiles(
    id="codealpacapy",
    folders=("codealpaca", "CodeAlpaca-20k"),
    parts={
        "all": DataSetFile(
            names=("code_alpaca_20k.json", "code_alpaca_20k.json.gz", "code_alpaca_20k.merged.json.gz"),
            fields=("instruction", "input", "output"),
            hub=HubFile(file="code_alpaca_20k.json"),
        )
    },
    repository=HubRepository(id="sahil2801/CodeAlpaca-20k", commit="469fd122c8e99d31d9fcd75b2fd01f6bd7eb6846"),
    unnamed="all",
)


def load(locations: DataLocations, seed: int) -> DataSet:
    """Filter and split the rows; a file with fewer rows than the study had is split in the same proportions."""
    found = find(FILES, locations)
    dropped: Counter[str] = Counter()
    candidates: list[IntentExample] = []
    for row in read_rows(found.files["all"]):
        intent, code = row.text("instruction"), row.text("output")
        if row.text("input", default="") != "":
            dropped["has an input"] += 1
        elif not intent.strip() or not code.strip():
            dropped["empty"] += 1
        elif not parses(code):
            dropped["does not parse as Python"] += 1
        else:
            candidates.append(_example(intent.strip(), code.strip()))
    rows = stable_order(drop_duplicates(candidates, dropped), seed)
    share = min(1.0, len(rows) / TOTAL)
    test, rest = take(rows, round(SIZES["test"] * share))
    validation, rest = take(rest, round(SIZES["validation"] * share))
    train, surplus = take(rest, round(SIZES["train"] * share) if share == 1.0 else len(rest))
    dropped["beyond the study's size"] += len(surplus)
    train = drop_overlap(train, (*validation, *test), dropped, "also in validation or test")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return DataSet(
        name="codealpacapy",
        train=tuple(train),
        validation=tuple(validation),
        test=tuple(test),
        dropped={reason: count for reason, count in dropped.items() if count},
        licence=LICENCE,
        provenance=(
            f"CodeAlpaca-20k. {found.describe()}. Rows without input that parse as Python {version}, split by sha256 "
            f"of instruction and seed {seed}: our own split, not the study's"
        ),
        prompt_tokens=64,
        response_tokens=128,
    )


def _example(intent: str, code: str) -> IntentExample:
    """Make an example with an id from its content, as the file's order is not the same everywhere."""
    name = hashlib.sha256(f"{intent}\0{code}".encode()).hexdigest()[:12]
    return IntentExample(id=f"codealpacapy/{name}", intent=intent, code=code)


ENTRY = DataSetEntry(
    id="codealpacapy",
    summary="instruction to Python, written by a language model",
    licence=LICENCE,
    sizes=SIZES,
    files=(FILES,),
    load=load,
)
