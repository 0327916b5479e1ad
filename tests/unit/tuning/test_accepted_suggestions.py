"""What was accepted in a repository is learned there first, but never what judges, nor what came later."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_core.api_types import FeedbackRequest, Outcome
from peft_daemon.feedback import FeedbackRow
from peft_tuning.data.examples import DataSet, FillExample
from peft_tuning.data.repository.accepted import EDITED_WEIGHT, KEPT_WEIGHT, TYPED_WEIGHT, accepted_in
from peft_tuning.data.repository.documents import ACCEPTED_SHARE, DOCUMENT_CHARS, learning_data_set
from support.own_repository import OwnRepository, module

DAY = 86_400
START = 1_600_000_000
LAST = START + 8 * DAY
BEFORE = LAST - 60.0


def newest(number: int) -> str:
    """A function that one of the newest commits adds."""
    lines = "".join(f"    vessel_{number}_{index} = load_cargo_of_{number}({index})\n" for index in range(6))
    return f"\n\ndef sail_{number}(harbour):\n{lines}    return vessel_{number}_0\n"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> OwnRepository:
    own = OwnRepository(tmp_path_factory.mktemp("own") / "shop")
    own.commit({f"app/m{number}.py": module(number) for number in range(12)}, when=START)
    for number in range(8):
        path = f"app/m{number}.py"
        own.commit({path: module(number) + newest(number)}, when=START + (number + 1) * DAY)
    return own


def row(own: OwnRepository, now: str, *, id_: int = 1, when: float = BEFORE, **fields: object) -> FeedbackRow:
    record = FeedbackRequest(
        **{  # type: ignore[arg-type]
            "offer": str(id_),
            "outcome": Outcome.ACCEPTED,
            "language": "python",
            "path": str(own.root / "app" / "m9.py"),
            "prefix": "import math\n\nx = ",
            "suffix": "\ny = 2\n",
            "suggestion": now,
            "shown": len(now),
            "stood": len(now),
            "kept": len(now),
            "now": now,
            "model": "m",
            **fields,
        }
    )
    return FeedbackRow(id_, when, str(own.root), record, has_text=True)


def data_of(own: OwnRepository, *rows: FeedbackRow, documents: int = 40) -> DataSet:
    return learning_data_set(
        own.root, seed=42, max_documents=documents, held_out_holes=8, accepted=accepted_in(rows, own.root)
    )


def fills(data: DataSet) -> list[FillExample]:
    return [each for each in data.train if isinstance(each, FillExample)]


def test_they_come_first_with_their_weights_and_all_around_them_is_learned(own: OwnRepository) -> None:
    rows = (
        row(own, "math.floor(depth)", id_=1),
        row(own, "math.ceil(depth)", id_=2, stood=99),
        row(own, "math.sqrt(depth)", id_=3, outcome=Outcome.TYPED),
    )
    first = fills(data_of(own, *rows))[:3]
    assert [each.middle for each in first] == ["math.sqrt(depth)", "math.ceil(depth)", "math.floor(depth)"], (
        "newest first"
    )
    assert [each.weight for each in first] == [TYPED_WEIGHT, EDITED_WEIGHT, KEPT_WEIGHT]
    assert all(each.learn_all and each.path == "app/m9.py" for each in first)
    assert "3 of them accepted suggestions" in data_of(own, *rows).provenance
    assert "accepted" not in data_of(own).provenance


def test_what_was_refused_or_has_no_text_or_is_of_another_repository_is_not_learned(
    own: OwnRepository, tmp_path: Path
) -> None:
    other = OwnRepository(tmp_path / "other")
    other.commit({"app/m9.py": "x = 1\n"}, when=START)
    refused = row(own, "never(1)", outcome=Outcome.REJECTED, kept=None)
    without = FeedbackRow(2, BEFORE, str(own.root), row(own, "never(2)").record)
    foreign = row(other, "never(3)")
    edit = row(own, "never(4)", next_edit=True)
    assert accepted_in((refused, without, foreign, edit), own.root) == ()


def test_what_came_after_the_newest_commit_waits_for_the_next_one(own: OwnRepository) -> None:
    late = row(own, "math.floor(depth)", when=LAST + 1)
    assert accepted_in((late,), own.root) == ()
    assert accepted_in((row(own, "math.floor(depth)", when=LAST),), own.root) != ()


def test_an_answer_that_judges_is_never_among_them(own: OwnRepository) -> None:
    rows = [row(own, newest(number).strip(), id_=number) for number in range(8)]
    data = data_of(own, *rows)
    judges = [each for each in (*data.validation, *data.test) if isinstance(each, FillExample)]
    assert judges
    learned = "".join("".join((each.prefix + each.middle + each.suffix).split()) for each in fills(data))
    assert not [each for each in judges if len(each.middle) > 20 and "".join(each.middle.split()) in learned]


def test_they_are_a_part_of_the_documents_and_as_long_as_those(own: OwnRepository) -> None:
    long = "".join(f"line_{number} = {number}\n" for number in range(900))
    rows = [
        row(own, f"math.floor({number})", id_=number, prefix=long + "x = ", suffix="\n" + long) for number in range(60)
    ]
    found = [each for each in fills(data_of(own, *rows)) if each.id.startswith("feedback/")]
    assert len(found) == round(32 * ACCEPTED_SHARE), "of the 32 that are the repository's own"
    for each in found:
        assert len(each.prefix + each.middle + each.suffix) <= DOCUMENT_CHARS + 1
        assert each.prefix.startswith("line_")
        assert each.suffix.endswith("\n")
    short = row(own, "1", prefix="x = ", suffix="")
    assert [(e.prefix, e.suffix) for e in fills(data_of(own, short)) if e.id.startswith("feedback/")] == [("x = ", "")]
