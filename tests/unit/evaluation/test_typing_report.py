"""A report of the typing benchmark is opened as an evaluation's is, and its page has the same frame."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from peft_cli.report import app
from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.report.html import html
from peft_evaluation.report.store import EVALUATION, write_report
from peft_evaluation.typing_benchmark.report import TYPING, html_report
from peft_evaluation.typing_benchmark.results import BenchReport
from support.evaluation_report import finished_report

KEPT = Path(__file__).parents[3] / "docs/reports/typing"


@pytest.fixture(scope="module")
def report() -> BenchReport:
    return TYPING.read(KEPT)


@pytest.fixture
def run(tmp_path: Path, report: BenchReport, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run as ``bench typing`` leaves it, without its pages."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    folder = tmp_path / "peft-daemon" / TYPING.runs / "mine"
    folder.mkdir(parents=True)
    TYPING.write(folder, report)
    return folder


def opened(which: object) -> Path:
    result = CliRunner().invoke(app, ["open", "--path", str(which)])
    assert result.exit_code == 0, result.exception
    return Path(result.output.strip())


def test_it_is_opened_by_its_folder_its_file_and_its_name(run: Path) -> None:
    for which in (run, run / "bench.json", "mine"):
        page = opened(which)
        assert page == run / "bench.html"
        assert "llama.vscode" in page.read_text(encoding="utf-8")
        assert (run / "bench.md").read_bytes() == (KEPT / "bench.md").read_bytes()
        page.unlink()


@pytest.mark.parametrize("name", ["figures.json", "figures.json.gz"])
def test_a_file_of_another_name_is_recognised_by_what_it_holds(run: Path, tmp_path: Path, name: str) -> None:
    for kind, page in ((TYPING, "bench.html"), (EVALUATION, "report.html")):
        write_report(run, finished_report())
        content = (run / kind.file).read_bytes()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        assert opened(tmp_path / name) == tmp_path / page


def test_an_evaluation_comes_before_a_benchmark_of_its_name_once_it_has_a_report(run: Path, tmp_path: Path) -> None:
    evaluation = tmp_path / "peft-daemon" / EVALUATION.runs / "mine"
    evaluation.mkdir(parents=True)
    assert opened("mine") == run / "bench.html"
    write_report(evaluation, finished_report())
    assert opened("mine") == evaluation / "report.html"


def test_what_cannot_be_read_says_how_to_make_it_again(run: Path, report: BenchReport) -> None:
    TYPING.write(run, msgspec.structs.replace(report, schema=99))
    found = CliRunner().invoke(app, ["open", "--path", "mine"]).exception
    assert isinstance(found, InvalidInput)
    assert (found.what, found.fix) == (
        f"{run / 'bench.json'} is a report of version 99",
        "Run the benchmark again, or use the peft-daemon that wrote it",
    )
    (run / "bench.json").write_bytes(b"{")
    found = CliRunner().invoke(app, ["open", "--path", "mine"]).exception
    assert isinstance(found, InvalidInput)
    assert found.fix == "Run the benchmark again"


@pytest.mark.parametrize("which", ["other", "other/bench.json"])
def test_a_report_that_is_not_there_is_an_evaluation_s(run: Path, which: str) -> None:
    found = CliRunner().invoke(app, ["open", "--path", which]).exception
    assert isinstance(found, NotFound)
    assert "its report.json" in (found.fix or "")


def test_evaluations_are_still_all_that_is_compared(run: Path) -> None:
    assert isinstance(CliRunner().invoke(app, ["compare", str(run), str(run)]).exception, NotFound)


def test_its_page_has_the_frame_and_the_style_of_an_evaluation_s(report: BenchReport) -> None:
    ours, other = html_report(report), html(finished_report())
    assert re.findall("<style>.*?</style>", ours, re.DOTALL) == re.findall("<style>.*?</style>", other, re.DOTALL)
    policy = re.compile("default-src 'none'; style-src 'sha256-[^']+'")
    assert policy.findall(ours) == policy.findall(other) != []
    assert "script" not in ours
    for page in (ours, other):
        assert page.startswith("<!doctype html>\n")
        assert page.count('<h2>How it was done</h2>\n<div class="facts">') == 1
