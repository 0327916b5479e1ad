"""Joint: Conala and CodeAlpacaPy one after the other, as the study's joint training; each keeps its own split.

A training row whose sentence is held out in the other data set is dropped, so that neither test set is trained on.
"""

from __future__ import annotations

from collections import Counter

from peft_tuning.datasets import codealpacapy, conala
from peft_tuning.datasets.entry import Entry
from peft_tuning.datasets.sources import Places
from peft_tuning.datasets.splits import apart
from peft_tuning.examples import DataSet

PARTS = (conala.ENTRY, codealpacapy.ENTRY)
REASON = "held out in the other data set"


def load(places: Places, seed: int) -> DataSet:
    """Both data sets; with ``--data FOLDER`` both are looked for there, in sub-folders of their names too."""
    parts = first, second = [entry.load(places, seed) for entry in PARTS]
    dropped: Counter[str] = Counter()
    for part in parts:
        dropped.update({f"{part.name}: {reason}": count for reason, count in part.dropped.items()})
    held_out = [example for part in parts for example in (*part.validation, *part.test)]
    train = apart((*first.train, *second.train), held_out, dropped, REASON)
    # The published parts of the first stay whole, so the second gives way.
    validation = (*first.validation, *apart(second.validation, first.test, dropped, REASON))
    test = (*first.test, *apart(second.test, first.validation, dropped, REASON))
    return DataSet(
        name="joint",
        train=tuple(train),
        validation=validation,
        test=test,
        dropped=dict(dropped),
        licence=" and ".join(part.licence for part in parts),
        provenance=". ".join(part.provenance for part in parts),
        prompt_tokens=max(part.prompt_tokens for part in parts),
        response_tokens=max(part.response_tokens for part in parts),
    )


ENTRY = Entry(
    id="joint",
    summary="conala and codealpacapy together",
    licence=" and ".join(entry.licence for entry in PARTS),
    sizes={part: sum(entry.sizes[part] for entry in PARTS) for part in ("train", "validation", "test")},
    wanted=tuple(wanted for entry in PARTS for wanted in entry.wanted),
    load=load,
)
