"""A report that is given away has every figure and no text of the user's or the model's."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from peft_cli.report import app
from peft_core.errors import InvalidInput
from peft_evaluation.report import store
from peft_evaluation.report.schema import Report
from peft_evaluation.report.store import without_texts
from support.evaluation_report import ITEMS, answers, finished_report


@pytest.fixture
def report() -> Report:
    return finished_report()


def test_all_figures_stay_and_no_text_does(report: Report) -> None:
    shared = without_texts(report)
    assert (shared.strategies, shared.comparisons) == (report.strategies, report.comparisons)
    assert [[a.scores for a in item.answers] for item in shared.items] == [
        [a.scores for a in item.answers] for item in report.items
    ]
    assert not any(item.question or item.reference or any(any(a.texts) for a in item.answers) for item in shared.items)


def test_what_a_program_printed_or_raised_is_not_in_it(report: Report) -> None:
    first, *rest = report.items
    failed = msgspec.structs.replace(first.answers[0], outcomes=("failed: printed 'secret'", "passed"))
    report = msgspec.structs.replace(report, items=(msgspec.structs.replace(first, answers=(failed,)), *rest))
    assert without_texts(report).items[0].answers[0].outcomes == ("failed", "passed")


def test_the_command_writes_files_of_which_none_holds_a_text(report: Report, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    store.write_report(tmp_path / "mine", report)
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["share", str(tmp_path / "mine"), str(out)])
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {"report.json", "report.md", "report.html"}
    texts = {item.question for item in ITEMS.items} | {each.given.texts[0].strip() for each in answers()} - {"y("}
    for path in out.iterdir():
        content = path.read_text(encoding="utf-8")
        assert not [text for text in texts if text in content]
    assert store.read_report(out).strategies == report.strategies


def test_a_folder_with_something_in_it_is_left_alone(report: Report, tmp_path: Path) -> None:
    store.write_report(tmp_path, report)
    result = CliRunner().invoke(app, ["share", str(tmp_path), str(tmp_path)])
    assert isinstance(result.exception, InvalidInput)
    assert store.read_report(tmp_path) == report
