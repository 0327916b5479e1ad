"""What a study's report says of seeds, costs and failures, and how a study and its plan are shown."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from peft_cli.report import app
from peft_cli.study_view import StudyView, print_forecast
from peft_core.errors import NotFound
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_evaluation.generation import SampleResult
from peft_evaluation.journal import IDENTITY_FILE, Journal, begin_run
from peft_evaluation.model import Beams
from peft_evaluation.report import store
from peft_evaluation.report.page import ReportPages
from peft_evaluation.scorers.metrics import WHOLES
from peft_evaluation.study.definition import Cell, Study, StudyData
from peft_evaluation.study.forecast import CellForecast, StudyForecast
from peft_evaluation.study.progress import CELLS_FILE, CellRecord, StudyRequest, TuningCosts
from peft_evaluation.study.report import (
    STUDY_PAGES,
    cost_table,
    html_report,
    markdown_report,
    overviews,
    seed_table,
    write_report,
)
from peft_evaluation.study.results import StudyReport, collect
from peft_evaluation.study.runner import CellEnded, CellStarted, CellTimes, StudyEvent, StudyReported
from peft_evaluation.study.steps import evaluate_request
from peft_tuning.events import CheckpointSaved, Loading, StepFinished
from support.evaluation_report import IDENTITY, answers, finished_report

pytestmark = pytest.mark.torch

MODEL = "qwen2.5-coder-0.5b-instruct"
STUDY = Study(
    name="small",
    models=(MODEL,),
    datasets=(StudyData(name="conala", train=30),),
    methods=("ia3",),
    strategies=("icl-1", "rag-bm25-1"),
    seeds=(1, 2),
)


@pytest.fixture
def request_(tmp_path: Path) -> StudyRequest:
    """A study whose strategies are done, except for retrieval, and whose method failed with one seed."""
    request = StudyRequest(
        study=STUDY,
        settings=Settings(),
        paths=Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path)}),
        command="peft-daemon evaluate --study small.toml",
    )
    folder = request.evaluation_folder(MODEL, STUDY.datasets[0])
    begin_run(folder, IDENTITY, resume=False)
    store.write_report(folder, finished_report())
    with Journal(folder / "answers.jsonl", SampleResult) as journal:
        for answer in answers():
            journal.append(answer)
    request.folder.mkdir(parents=True)
    with Journal(request.folder / CELLS_FILE, CellRecord) as journal_of_cells:
        for cell in STUDY.cells():
            reason = {"ia3": "there is not enough memory for this run", "rag-bm25-1": ""}.get(cell.row, "")
            if cell.row != "rag-bm25-1" and cell.seeds != (2,):
                journal_of_cells.append(CellRecord(cell=cell.id, reason=reason, at="", seconds=1.0))
    return request


@pytest.fixture
def report(request_: StudyRequest) -> StudyReport:
    return collect(request_)


def test_a_row_is_the_mean_over_its_seeds_and_says_what_each_seed_gave(report: StudyReport) -> None:
    (table,) = report.tables
    rows = {row.name: row for row in table.rows}
    assert list(rows) == ["zero-shot", "icl-1", "rag-bm25-1", "ia3"]
    found = rows["icl-1"]
    # Right on the even ones of twenty items with the first seed, and never with the second.
    assert found.by_seed["1"]["em@1"] == 0.5 and found.by_seed["2"]["em@1"] == 0.0
    assert (found.metrics["em@1"].value, found.metrics["em@1"].count) == (0.25, 20)
    assert found.metrics["em@1"].high - found.metrics["em@1"].low > 0.4  # two seeds that differ so much say little
    assert (rows["zero-shot"].by_seed, rows["zero-shot"].metrics["em@1"].value) == ({}, 0.0)
    assert seed_table(table).rows == (("icl-1", "50.0 %", "0.0 %"),)
    compared = next(each for each in table.comparisons if each.metric == "em@1")
    assert (compared.strategy, compared.won, compared.lost) == ("icl-1", 10, 0)


def test_what_has_no_result_is_in_the_report_with_its_reason(report: StudyReport) -> None:
    rows = {row.name: row for row in report.tables[0].rows}
    assert rows["rag-bm25-1"].failures == ("not done yet",)
    assert rows["ia3"].failures == ("seed 1: there is not enough memory for this run", "seed 2: not done yet")
    for page in (markdown_report(report), html_report(report)):
        assert "seed 1: there is not enough memory for this run; seed 2: not done yet" in page


def test_a_study_without_any_answer_has_no_report_but_the_reasons(request_: StudyRequest) -> None:
    (request_.evaluation_folder(MODEL, STUDY.datasets[0]) / "report.json").unlink()
    with pytest.raises(NotFound, match="there is not enough memory for this run"):
        collect(request_)


def test_a_cell_whose_answers_were_deleted_is_to_be_done_again(request_: StudyRequest) -> None:
    (request_.evaluation_folder(MODEL, STUDY.datasets[0]) / IDENTITY_FILE).unlink()
    assert {row.failures for row in collect(request_).tables[0].rows[:2]} == {("not done yet",)}


def test_several_tables_have_an_overview_with_a_row_for_each_model_and_a_column_for_each_data_set(
    report: StudyReport,
) -> None:
    (table,) = report.tables
    other = msgspec.structs.replace(table, data=msgspec.structs.replace(table.data, name="other"), rows=table.rows[:1])
    assert overviews(report) == []
    ((_, found),) = overviews(msgspec.structs.replace(report, tables=(table, other)))
    assert found.head == ("model", "", "small, exact match, top 1", "other, exact match, top 1")
    assert found.rows[0][1:] == ("zero-shot", "0.0 % [0.0, 16.1]", "0.0 % [0.0, 16.1]")
    assert [row[1] for row in found.rows] == ["zero-shot", "icl-1", "rag-bm25-1", "ia3"]
    assert found.rows[1][3] == found.rows[2][2] == "—"
    page = markdown_report(msgspec.structs.replace(report, tables=(table, other)))
    assert page.index("## All models and data sets") < page.index("## tiny on small")


def test_groups_of_questions_have_a_table_each(request_: StudyRequest) -> None:
    folder = request_.evaluation_folder(MODEL, STUDY.datasets[0])
    whole = finished_report()
    items = tuple(
        msgspec.structs.replace(item, group="odd" if index % 2 else "even") for index, item in enumerate(whole.items)
    )
    store.write_report(folder, msgspec.structs.replace(whole, items=items))
    report = collect(request_)
    rows = {row.name: row for row in report.tables[0].rows}
    # Its first seed is right on the even items, its second one nowhere.
    assert {group: measures["em@1"].value for group, measures in rows["icl-1"].groups.items()} == {
        "even": 0.5,
        "odd": 0,
    }
    assert rows["icl-1"].groups["even"]["em@1"].count == 10
    assert rows["ia3"].groups == {}
    assert "### even\n\n| strategy | items | exact match" in markdown_report(report)


def test_a_copy_to_give_away_is_made_by_name(
    request_: StudyRequest, report: StudyReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEFT_DAEMON_HOME", str(tmp_path))
    write_report(request_.folder, report)
    out = tmp_path / "out"
    assert CliRunner().invoke(app, ["share", "small", str(out)]).exit_code == 0
    assert {path.name for path in out.iterdir()} == {"study.json", "study.md", "study.html"}
    assert STUDY_PAGES.format.read(out) == report


def test_studies_are_listed_with_the_evaluations(
    request_: StudyRequest, report: StudyReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEFT_DAEMON_HOME", str(tmp_path))
    assert not any(row["kind"] == "study" for row in json.loads(CliRunner().invoke(app, ["list", "--json"]).stdout))
    write_report(request_.folder, report)
    found = json.loads(CliRunner().invoke(app, ["list", "--json"]).stdout)
    (study,) = [row for row in found if row["kind"] == "study"]
    assert (study["name"], study["model"], study["items"]) == ("small", "tiny", report.tables[0].data.items)
    assert study["strategies"] == [row.name for row in report.tables[0].rows]
    assert "study small: " in CliRunner().invoke(app, ["list"]).stdout


def test_costs_have_parameters_memory_and_time(report: StudyReport) -> None:
    costs = TuningCosts(
        trainable_parameters=208_896,
        adapter_bytes=900_000,
        peak_memory_bytes=4_600_000_000,
        seconds=372.0,
        steps=38,
        best_step=30,
    )
    rows = [msgspec.structs.replace(row, tuning=costs if row.name == "ia3" else None) for row in report.tables[0].rows]
    table = cost_table(msgspec.structs.replace(report.tables[0], rows=tuple(rows)))
    assert table.rows[0] == ("zero-shot", *["—"] * 5, "5.0 MB", "19.0 s", "40")
    assert table.rows[3][:6] == ("ia3", "208,896", "0.9 MB", "4.60 GB", "6 min 12 s", "38 (30)")


def test_the_page_has_the_frame_of_all_pages_and_the_files_are_made_again_from_the_json(
    report: StudyReport, tmp_path: Path
) -> None:
    write_report(tmp_path, report)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"study.json", "study.md", "study.html"}
    before = {name: (tmp_path / name).read_bytes() for name in ("study.md", "study.html")}
    pages: ReportPages[StudyReport] = STUDY_PAGES
    assert pages.remake(tmp_path / "study.json") == tmp_path / "study.html"
    assert before == {name: (tmp_path / name).read_bytes() for name in before}
    page = before["study.html"].decode()
    assert page.startswith("<!doctype html>\n") and "<script" not in page
    assert page.count("<figure>") == len(report.tables[0].rows[0].metrics.keys() & set(WHOLES))
    assert "2 seeds: intervals are over questions and seeds" in page
    assert "same engine in the same precision: llamacpp engine, weights as float32" in page


def lines(*events: tuple[float, StudyEvent]) -> list[str]:
    out, now = io.StringIO(), 0.0
    with StudyView(Console(file=out, width=80), clock=lambda: now) as show:
        for at, event in events:
            now = at
            show(event)
    return out.getvalue().splitlines()


def test_a_log_says_which_cell_is_worked_on_and_how_far_it_is(report: StudyReport) -> None:
    cell = {"number": 3, "of": 8, "cell": "lora × conala, seed 42", "model": MODEL}
    step = StepFinished(
        step=10, steps=38, epoch=0.3, loss=1.25, learning_rate=1e-4, tokens_per_s=9.0, memory_bytes=1, eta_s=725.0
    )
    reported = StudyReported(folder="/data/studies/small", name="small", tables=report.tables, notes=())
    found = lines(
        (1, CellStarted(step="tuning", **cell)),  # type: ignore[arg-type]
        (2, Loading(what="reading")),
        (40, step),
        (41, CheckpointSaved(step=10)),
        (42, CellEnded(eta_s=725.0, **cell)),  # type: ignore[arg-type]
        (43, CellEnded(reason="no memory", **cell)),  # type: ignore[arg-type]
        (44, reported),
    )
    start = "cell 3 of 8: lora × conala, seed 42: "
    ends = ["tuning", "step 10 of 38, loss 1.250, 12:05 left", "done; about 12 min 5 s left", "failed: no memory"]
    assert found[:4] == [start + end for end in ends]
    assert max(map(len, found[4:-5])) <= 80
    assert any(re.match(r" icl-1 +25\.0 % \[", line) for line in found)
    assert "note: ia3 has no result: seed 1: there is not enough memory for this run" in found
    assert found[-1] == "report: /data/studies/small/study.html (`peft-daemon report open small`)"


def test_the_time_left_is_that_of_cells_of_the_same_kind() -> None:
    times, cells = CellTimes(), STUDY.cells()
    answered, tuned = (next(each for each in cells if (each.method is not None) is kind) for kind in (False, True))
    assert times.seconds_of([answered, tuned]) is None
    times.add(answered, 10)
    assert times.seconds_of([answered, tuned, tuned]) == 30, "of the other kind, until one has ended"
    times.add(tuned, 100)
    times.add(tuned, 300)
    assert times.seconds_of([answered, tuned, tuned]) == 10 + 200 + 200
    assert times.seconds_of([]) == 0


def test_a_terminal_shows_one_line_that_changes() -> None:
    out = io.StringIO()
    with StudyView(Console(file=out, width=80, force_terminal=True, color_system=None)) as show:
        show(CellStarted(number=1, of=2, cell="zero-shot × conala", model=MODEL, step="answering"))
        show(Loading(what="loading [bold]", done=1, of=3))
    assert "cell 1 of 2: zero-shot × conala: loading [bold] 1/3" in out.getvalue()


def test_a_plan_is_a_table_of_what_is_missing_and_its_sum() -> None:
    found = StudyForecast(
        name="small",
        cells=(
            CellForecast(cell="zero-shot × conala", model=MODEL, done=True),
            CellForecast(
                cell="lora × conala, seed 42",
                model=MODEL,
                done=False,
                tuning_s=540.0,
                answering_s=60.0,
                memory_bytes=5_800_000_000,
                trainable_parameters=8_798_208,
            ),
            CellForecast(cell="ia3 × conala, seed 42", model=MODEL, done=False, reason="T5 has none"),
        ),
        seconds=600.0,
        memory_bytes=5_800_000_000,
        available_bytes=4_000_000_000,
    )
    out = io.StringIO()
    print_forecast(Console(file=out, width=80), found)
    text = out.getvalue()
    assert text.startswith("small: 3 cells, 1 of them done\n")
    assert re.search(r"lora × conala, seed 42 +8,798,208 +9 min 0 s +1 min 0 s +5\.80 GB", text)
    assert "note: ia3 × conala, seed 42 cannot be done: T5 has none" in text
    assert text.endswith("in all 10 min 0 s, 5.80 GB at the peak of 4.00 GB available: this will not fit\n")


def test_a_cell_is_answered_by_the_cluster_that_was_named_from_the_examples_that_tuning_sees(
    request_: StudyRequest, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    parts = ["train"] * 40 + ["test"] * 4
    lines = (json.dumps({"intent": f"add {n}", "code": f"x+{n}", "split": part}) for n, part in enumerate(parts))
    rows.write_text("\n".join(lines))
    study = msgspec.structs.replace(STUDY, datasets=(StudyData(name=str(rows), train=30, test=3, beams=4),))
    request = replace(request_, study=study, ray="head:6379")
    step = request.answer_step(study.cells()[1])
    asked = evaluate_request(step, request.installation(MODEL))
    assert (asked.ray, asked.limit, asked.decoding, asked.resume) == ("head:6379", 3, Beams(4), True)
    samples = asked.load_items(lambda *_: None)
    assert ([example.code for example in samples.pool], len(samples.items)) == ([f"x+{n}" for n in range(30)], 4)
    assert request.installation(MODEL).settings.engine == "torch"


def test_a_cell_has_one_row_for_all_its_seeds() -> None:
    rows = {cell.row for cell in STUDY.cells()}
    assert rows == {"zero-shot", "icl-1", "rag-bm25-1", "ia3"}
    assert Cell(model=MODEL, data=STUDY.datasets[0], method="ia3", prompting="icl-1").row == "ia3 + icl-1"
