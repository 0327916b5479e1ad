"""A report that can be given away: all figures, and nothing that was asked, answered or expected.

What is left of an item is its id (for a hole the path of its file is in it), its group, and what each answer scored.
"""

from __future__ import annotations

from msgspec.structs import replace

from peft_evaluation.results import Answer, ItemResult, Report

NOTE = "Questions, references and answers are left out of this copy."


def without_texts(report: Report) -> Report:
    """The same report without its texts."""
    data = replace(report.data, notes=(*report.data.notes, NOTE))
    return replace(report, data=data, items=tuple(_item(item) for item in report.items))


def _item(item: ItemResult) -> ItemResult:
    return replace(item, question="", reference="", answers=tuple(_answer(answer) for answer in item.answers))


def _answer(answer: Answer) -> Answer:
    # Behind the colon stands what a program printed or raised.
    outcomes = tuple(outcome.partition(":")[0] for outcome in answer.outcomes)
    return replace(answer, texts=("",) * len(answer.texts), outcomes=outcomes)
