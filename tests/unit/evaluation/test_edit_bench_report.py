"""Figures of the benchmark of next edits, and its report in every form."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from peft_cli.report import app
from peft_core.errors import InvalidInput
from peft_evaluation.edit_benchmark.policies import DEFAULT, choose_edit_policies
from peft_evaluation.edit_benchmark.report import EDITS, html_report, markdown_report
from peft_evaluation.edit_benchmark.results import EditBenchReport
from peft_evaluation.report.schema import Judgement
from support.edit_bench_report import COUNT, edit_report, facts, trials


@pytest.fixture(scope="module")
def report() -> EditBenchReport:
    return edit_report()


def test_figures_count_the_scenarios_that_they_are_of(report: EditBenchReport) -> None:
    ours, nothing = (report.edit_policies[name].figures for name in ("ours", "nothing"))
    assert {name: round(each.value, 3) for name, each in ours.items()} == {
        "exact": 0.667,
        "shown": 0.667,
        "exact_shown": 1.0,
        "of_commit": 0.667,
        "of_commit_shown": 1.0,
        "similarity": 0.667,
        "quiet": 0.833,
        "false": 0.2,
        "reversal": 0.2,
    }
    assert {name: each.count for name, each in ours.items()} == {
        **dict.fromkeys(("exact", "of_commit", "shown", "similarity", "quiet"), COUNT // 2),
        **dict.fromkeys(("exact_shown", "of_commit_shown"), 4),
        **dict.fromkeys(("false", "reversal"), 5),
    }
    assert set(nothing) == {"exact", "of_commit", "shown", "similarity", "quiet"}
    assert (nothing["exact"].value, nothing["quiet"].value) == (0.0, 1.0)
    assert all(each.low <= each.value <= each.high for each in (*ours.values(), *nothing.values()))


def test_groups_have_each_scenario_once(report: EditBenchReport) -> None:
    groups = report.edit_policies["ours"].groups
    for name, figure, count in (("distance", "exact", COUNT // 2), ("kind", "quiet", COUNT // 2)):
        assert sum(each[figure].count for each in groups[name].values() if figure in each) == count
    for name in ("language", "repository"):
        assert sum(each["quiet"].count for each in groups[name].values()) == COUNT // 2


def test_waiting_is_of_requests_that_were_made_first(report: EditBenchReport) -> None:
    ours = report.edit_policies["ours"]
    assert (ours.latency_p50_ms, ours.latency_p95_ms) == (600.0, 1200.0)
    assert report.edit_policies["nothing"].latency_p50_ms is None


def test_the_first_policy_is_compared_with_the_others_scenario_by_scenario(report: EditBenchReport) -> None:
    found = {each.metric: each for each in report.comparisons}
    assert set(found) == {"exact", "of_commit", "quiet", "similarity"}
    assert (found["exact"].won, found["exact"].lost, found["quiet"].lost) == (4, 0, 1)
    assert all(each.judgement is Judgement.NO_DIFFERENCE for each in found.values())


def test_places_found_are_of_answers_by_their_distance(report: EditBenchReport) -> None:
    assert report.places_found["all"].count == COUNT // 2
    assert report.places_found["all"].value == 0.5
    assert set(report.places_found) == {"all", "same_line", "near", "far"}


def test_a_report_is_read_as_it_was_written_and_opened_by_its_name(
    report: EditBenchReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    folder = tmp_path / "peft-daemon" / EDITS.runs / "mine"
    folder.mkdir(parents=True)
    EDITS.write(folder, report)
    assert EDITS.read(folder) == report
    (tmp_path / "figures.json").write_bytes((folder / "edits.json").read_bytes())
    for which, page in (("mine", folder / "edits.html"), (str(tmp_path / "figures.json"), tmp_path / "edits.html")):
        opened = CliRunner().invoke(app, ["open", "--path", which])
        assert opened.output.strip() == str(page), opened.exception
        assert page.is_file()


@pytest.mark.parametrize("make", [markdown_report, html_report])
def test_every_form_has_the_figures_the_groups_and_the_notes(report: EditBenchReport, make: object) -> None:
    text = make(report)  # type: ignore[operator]
    for part in (
        "67 % [",
        "quiet rate",
        "within 10 lines",
        "half-typed word",
        "r1, exact",
        "a note",
        "unsure",
        "1,200",
    ):
        assert part in text, part
    assert "<script" not in text


def test_the_published_report_has_no_code(report: EditBenchReport) -> None:
    for kind in (type(facts()["s0"]), type(trials()[0])):
        assert {"old", "new", "text"}.isdisjoint(kind.__struct_fields__)
    assert "suggested" not in msgspec.json.encode(report).decode()


def test_policies_are_chosen_by_name_and_an_unknown_one_is_refused() -> None:
    assert [each.name for each in choose_edit_policies(DEFAULT)] == ["ours", "ours-all", "fill", "nothing"]
    model, adapter = choose_edit_policies(("model=other", "adapter=mine", "model=other"))
    assert (model.model, adapter.model, adapter.question) == ("other", "", "adapter=mine")
    for name in ("nobody", "model=", "=x"):
        with pytest.raises(InvalidInput, match="there is no policy"):
            choose_edit_policies((name,))
