"""A report that is given away has every figure and no text of the user's or the model's."""

from __future__ import annotations

import gzip
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

REPORTS = Path(__file__).parents[3] / "docs/reports"


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


@pytest.fixture
def compressed(report: Report, tmp_path: Path) -> Path:
    """A folder as it is kept in a repository: the Markdown page beside compressed JSON."""
    folder = tmp_path / "peft-daemon" / "evaluations" / "kept"
    folder.mkdir(parents=True)
    plain = store.write_report(folder, report)
    (folder / "report.json.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    return folder


def test_a_compressed_report_is_read_as_a_plain_one(report: Report, compressed: Path) -> None:
    assert store.read_report(compressed) == store.read_report(compressed / "report.json.gz") == report
    assert store.read_report(compressed / "report.json") == report


@pytest.mark.parametrize(
    "content",
    [b"{}", gzip.compress(b"{}", mtime=0), gzip.compress(b"{}" * 99, mtime=0)[:-9]],
    ids=["not compressed", "no report", "cut off"],
)
def test_what_is_no_compressed_report_is_refused(compressed: Path, content: bytes) -> None:
    (compressed / "report.json.gz").write_bytes(content)
    with pytest.raises(InvalidInput, match="report"):
        store.read_report(compressed)


def test_a_plain_report_comes_before_a_compressed_one(report: Report, compressed: Path) -> None:
    newer = msgspec.structs.replace(report, seconds=99.0)
    store.write_report(compressed, newer)
    assert store.read_report(compressed) == newer


@pytest.mark.parametrize("name", ["", "report.json", "report.json.gz"])
def test_opening_a_compressed_report_makes_its_page(compressed: Path, name: str) -> None:
    result = CliRunner().invoke(app, ["open", "--path", str(compressed / name)])
    assert result.exit_code == 0, result.output
    page = (compressed / "report.html").read_text(encoding="utf-8")
    assert "adapter:mine" in page
    assert not (compressed / "report.json").exists()


def test_compressed_reports_are_listed_and_compared(compressed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(compressed.parents[2]))
    listed = CliRunner().invoke(app, ["list", "--json"])
    assert [row["name"] for row in msgspec.json.decode(listed.output)] == ["kept"]
    compared = CliRunner().invoke(app, ["compare", "kept", "kept", "--json"])
    assert compared.exit_code == 0, compared.output


@pytest.mark.parametrize("path", sorted(REPORTS.glob("*/*.json.gz")), ids=lambda path: path.parent.name)
def test_the_reports_in_this_repository_can_be_opened(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    result = CliRunner().invoke(app, ["open", "--path", str(tmp_path)])
    assert result.exit_code == 0, result.output
    page = Path(result.output.strip())
    assert page == tmp_path / path.name.replace(".json.gz", ".html")
    assert page.stat().st_size > 10_000
    assert page.with_suffix(".md").exists()
