"""A study through the command line on a tiny random model: interrupted, killed, continued, and its figures checked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from peft_cli.report import app
from peft_core.errors import Conflict, NoSpace
from peft_core.paths import Paths
from peft_core.settings import resolve
from peft_daemon.adapters.registry import AdapterRegistry
from peft_evaluation.datasets import catalogue
from peft_evaluation.generation import SampleResult
from peft_evaluation.journal import Journal
from peft_evaluation.report import store
from peft_evaluation.runner import EvaluateRequest, SampleAnswered, evaluate
from peft_evaluation.study.definition import read_study
from peft_evaluation.study.forecast import forecast
from peft_evaluation.study.progress import StudyRequest, adapter_of, begin, done_cells
from peft_evaluation.study.report import STUDY
from peft_evaluation.study.results import StudyReport, collect
from peft_evaluation.study.runner import StudyEvent
from peft_evaluation.study.steps import MeasureStep, StepError, StepOrder, run_step
from peft_tuning.data.datasets.sources import DataLocations
from support.limited_files import files_of_at_most
from support.running_daemon import home_environment, processes, run_cli
from support.tiny_folder import write_folder
from support.waiting import wait_until

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

ROWS = [
    {"intent": f"add {n} to x", "code": f"x + {n}", "split": "train" if n < 12 else "validation" if n < 14 else "test"}
    for n in range(20)
]
STUDY_FILE = """
name = "tiny"
models = ["tiny-qwen2"]
methods = ["lora", "prefix", "ia3"]
strategies = ["rag-bm25-2"]
seeds = [7]
[[datasets]]
name = "rows.jsonl"
train = 8
test = 4
max_tokens = 6
[tuning]
epochs = 16
batch_size = 1
evaluations_per_epoch = 1
threads = 1
niceness = 0
[options.prefix]
rank = 8               # prefix tuning has no rank, so this cell fails
[options.ia3]
learning_rate = 0.5
"""
KILLS = int(os.environ.get("PEFT_DAEMON_KILLS", "20"))
LORA, IA3 = "tiny-tiny-qwen2-rows-lora-7", "tiny-tiny-qwen2-rows-ia3-7"
PREFIX_REASON = "'rank' is not an option of prefix: it has virtual_tokens"
Event = dict[str, Any]


@dataclass(frozen=True)
class Home:
    """A home with the tiny model, and the study's file."""

    environment: dict[str, str]
    file: Path

    @property
    def data(self) -> Path:
        return Paths.from_environment(self.environment).data

    def request(self, text: str) -> StudyRequest:
        """The study of a file with this text, as the command line asks for it."""
        file = self.file.with_name("other.toml")
        file.write_text(text)
        settings = resolve(environ=self.environment).settings
        return StudyRequest(study=read_study(file), settings=settings, paths=Paths.from_environment(self.environment))

    def until(self, event: str, cell: str, number: signal.Signals) -> tuple[list[Event], int]:
        """Run the study, send it a signal at the first event of this type in this cell; its events and exit code."""
        command = [sys.executable, "-m", "peft_daemon", "evaluate", "--study", str(self.file), "--json"]
        events: list[Event] = []
        with subprocess.Popen(command, env={**os.environ, **self.environment}, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line == b"{\n":  # an error, which is the last thing it says
                    break
                events.append(json.loads(line))
                there = next((each["cell"] for each in reversed(events) if each["type"] == "cell"), "")
                if events[-1]["type"] == event and there == cell:
                    process.send_signal(number)
                    event = ""
        home = Path(self.environment["PEFT_DAEMON_HOME"])
        wait_until(lambda: not processes(home), "the end of the step's process")
        return events, process.returncode


@dataclass(frozen=True)
class Story:
    """What happened to the study."""

    home: Home
    killed: tuple[list[Event], int]
    last: list[Event]
    report: StudyReport


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    top = tmp_path_factory.mktemp("study")
    environment = {**home_environment(top / "h", top / "m"), "PEFT_DAEMON_THREADS": "1"}
    (top / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    file = top / "study.toml"
    file.write_text(STUDY_FILE)
    run_cli("models", "add", str(write_folder("qwen2", top / "Tiny qwen2")), "--no-check", environment=environment)
    return Home(environment, file)


@pytest.fixture(scope="module")
def story(home: Home) -> Story:
    killed = home.until("saved", "lora × rows, seed 7", signal.SIGKILL)
    last = run_cli("evaluate", "--study", str(home.file), "--json", environment=home.environment).stdout
    report = STUDY.read(home.data / "studies" / "tiny")
    return Story(home, killed, [json.loads(line) for line in last.splitlines()], report)


def steps(events: list[Event]) -> list[tuple[str, str]]:
    return [(event["cell"].partition(" ×")[0], event["step"]) for event in events if event["type"] == "cell"]


def first_step(events: list[Event]) -> int:
    return next(int(event["first_step"]) for event in events if event["type"] == "started")


def test_after_a_kill_only_what_is_missing_is_done(story: Story) -> None:
    events, code = story.killed
    assert code == -signal.SIGKILL
    assert steps(events) == [("zero-shot", "answering"), ("rag-bm25-2", "answering"), ("lora", "tuning")]
    assert steps(story.last) == [
        *(("lora", "tuning"), ("lora", "answering")),
        ("prefix", "tuning"),
        *(("ia3", "tuning"), ("ia3", "answering")),
    ]
    assert first_step(story.last) > first_step(events) == 0
    assert story.last[-1]["type"] == "study"
    journal = Journal(story.home.data / "evaluations" / "tiny-tiny-qwen2-rows" / "answers.jsonl", SampleResult)
    asked = [answer.key for answer in journal.read()]
    assert len(asked) == len(set(asked)) == 4 * 4


def of(home: Home, name: str) -> Home:
    """A study of this name in the same home: two adapters and the base, a minute in all."""
    text = STUDY_FILE[: STUDY_FILE.index("[options.prefix]")].replace('"tiny"', f'"{name}"')
    file = home.file.with_name(f"{name}.toml")
    file.write_text(text.replace('"lora", "prefix", "ia3"', '"lora", "ia3"').replace("epochs = 16", "epochs = 4"))
    return Home(home.environment, file)


def results(home: Home, name: str) -> dict[str, Any]:
    """The digests of a study's adapters, and its answers, by cell."""
    registry = AdapterRegistry(Paths.from_environment(home.environment).adapters)
    listed = registry.list_adapters(check=True)
    assert not [each.damaged for each in listed if each.damaged]
    begins = f"{name}-tiny-qwen2-rows"
    adapters = {each.name.removeprefix(begins): each.digest for each in listed if each.name.startswith(begins)}
    journal = Journal(home.data / "evaluations" / begins / "answers.jsonl", SampleResult)
    answers = list(journal.read())
    given = {(each.strategy.replace(begins, ""), *each.key[1:]): each.given.texts[0] for each in answers}
    assert len(given) == len(answers), "nothing is asked twice"
    return adapters | given


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_a_study_that_is_killed_again_and_again_loses_nothing_and_has_the_same_results(home: Home) -> None:
    command = [sys.executable, "-m", "peft_daemon", "evaluate", "--json", "--study"]
    run_cli("evaluate", "--study", str(of(home, "alone").file), "--json", environment=home.environment)
    expected, top = results(home, "alone"), Path(home.environment["PEFT_DAEMON_HOME"])
    draw, kills, number = Random(20), 0, 0
    while kills < KILLS:
        name, number, code = f"killed{number}", number + 1, 1
        study, kept = of(home, name), dict[str, Any]()
        while code != 0:
            environment = {**os.environ, **home.environment}
            with subprocess.Popen([*command, str(study.file)], env=environment, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                if kills < KILLS:
                    for _ in islice(iter(process.stdout.readline, b""), draw.randrange(60)):
                        pass
                    time.sleep(draw.uniform(0, 1))
                    process.kill()
                process.communicate(timeout=600)
            code = process.returncode
            assert code in (0, -signal.SIGKILL)
            kills += code != 0
            wait_until(lambda: not processes(top), "the end of the step's process")
            found = results(home, name)
            assert kept.items() <= found.items() <= expected.items()
            kept = found
        assert found == expected
        assert STUDY.read(study.data / "studies" / name).tables
    print(f"\n{kills} kills, {number} studies")


@pytest.mark.long
def test_ctrl_c_keeps_a_checkpoint_and_the_same_command_goes_on(home: Home) -> None:
    text = STUDY_FILE.replace('"tiny"', '"again"').replace('["lora", "prefix", "ia3"]', '["lora"]')
    file = home.file.with_name("again.toml")
    file.write_text(text[: text.index("[options.prefix]")])
    again = Home(home.environment, file)
    events, code = again.until("saved", "lora × rows, seed 7", signal.SIGINT)
    assert code == 130
    assert [event["step"] for event in events if event["type"] == "cell"][-1] == "tuning"
    goes_on = run_cli("evaluate", "--study", str(file), "--json", environment=home.environment).stdout
    assert first_step([json.loads(line) for line in goes_on.splitlines()]) > 0


def test_its_figures_are_those_of_an_evaluation_of_the_same_strategies(story: Story) -> None:
    request = EvaluateRequest(
        name="alone",
        load_items=lambda _: catalogue.load(str(story.home.file.with_name("rows.jsonl")), DataLocations(cache=Path())),
        strategies=("zero-shot", f"adapter:{LORA}", f"adapter:{IA3}"),
        limit=4,
        max_tokens=6,
    )
    installation = story.home.request(STUDY_FILE).installation("tiny-qwen2")
    alone = evaluate(request, installation, lambda _event: None)
    (table,) = story.report.tables
    rows = {row.name: row for row in table.rows}
    assert list(rows) == ["zero-shot", "rag-bm25-2", "lora", "prefix", "ia3"]
    found = {"zero-shot": "zero-shot", "lora": f"adapter:{LORA}", "ia3": f"adapter:{IA3}"}
    for name, strategy in found.items():
        expected = next(each for each in alone.strategies if each.id == strategy)
        assert rows[name].metrics == expected.metrics
        assert expected.metrics["chrf"].count == 4
    differences = {(each.strategy, each.metric): (each.difference, each.p) for each in table.comparisons}
    for each in alone.comparisons:
        name = next(name for name, strategy in found.items() if strategy == each.strategy)
        assert differences[name, each.metric] == (each.difference, each.p)
    # An adapter that changes nothing would make this comparison empty.
    assert rows["ia3"].metrics["chrf"] != rows["zero-shot"].metrics["chrf"]


def test_costs_are_those_of_the_adapters_and_examples_are_those_that_tuning_learned_from(story: Story) -> None:
    (table,) = story.report.tables
    registry = AdapterRegistry(Paths.from_environment(story.home.environment).adapters)
    for name, adapter in (("lora", LORA), ("ia3", IA3)):
        manifest = registry.get(adapter)
        tuning = next(row.tuning for row in table.rows if row.name == name)
        assert tuning is not None
        assert (tuning.trainable_parameters, tuning.steps) == (manifest.parameters, 16 * 8)
        assert tuning.seconds > 0 and tuning.peak_memory_bytes > tuning.adapter_bytes > 0
        assert manifest.metrics["train_examples"] == 8
        assert registry.resolve(manifest.tasks[0]) is None
    assert (table.engine, table.precision, table.train) == ("torch", "float32", "the first 8")
    journal = Journal(story.home.data / "evaluations" / table.evaluation / "answers.jsonl", SampleResult)
    shown = {id_ for answer in journal.read() if answer.strategy == "rag-bm25-2" for id_ in answer.examples}
    pool = store.read_report(story.home.data / "evaluations" / table.evaluation)
    assert pool.data.items == 4
    assert shown and all(int(id_.rpartition("/")[2]) <= 8 for id_ in shown)


def test_a_cell_that_fails_is_in_the_report_with_its_reason_and_the_others_go_on(story: Story) -> None:
    ended = {event["cell"].partition(" ×")[0]: event["reason"] for event in story.last if event["type"] == "cell_ended"}
    assert ended == {"lora": "", "prefix": PREFIX_REASON, "ia3": ""}
    row = next(row for row in story.report.tables[0].rows if row.name == "prefix")
    assert (row.metrics, row.tuning, row.answering) == ({}, None, None)
    assert row.failures == (PREFIX_REASON,)


def test_the_report_is_opened_by_its_name(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in story.home.environment.items():
        monkeypatch.setenv(name, value)
    page = Path(CliRunner().invoke(app, ["open", "tiny", "--path"]).output.strip())
    assert page == story.home.data / "studies" / "tiny" / "study.html"
    text = page.read_text(encoding="utf-8")
    assert "tiny-qwen2 on rows.jsonl, 4 questions" in text and "rank&#39; is not an option of prefix" in text
    assert "| lora |" in (page.parent / "study.md").read_text(encoding="utf-8")


def test_other_values_are_refused_and_other_cells_are_added(story: Story) -> None:
    asked = story.home.request
    with pytest.raises(Conflict, match="begun with other values") as refused:
        begin(asked(STUDY_FILE.replace("epochs = 16", "epochs = 15").replace("test = 4", "test = 5")))
    assert '"epochs":16' in refused.value.why and '"epochs":15' in refused.value.why
    assert '"test":5' in refused.value.why and "methods" not in refused.value.why
    more = asked(STUDY_FILE.replace('"ia3"]', '"ia3", "prompt"]').replace('["rag-bm25-2"]', '["icl-1", "rag-bm25-2"]'))
    begin(more)
    done = done_cells(more)
    assert [cell.row for cell in more.study.cells() if cell.id not in done] == ["icl-1", "prefix", "prompt"]


def test_an_adapter_of_another_study_of_that_name_is_not_taken(story: Story) -> None:
    (cell,) = (each for each in story.home.request(STUDY_FILE).study.cells() if each.row == "lora")
    assert adapter_of(story.home.request(STUDY_FILE), cell) is not None
    other = story.home.request(
        STUDY_FILE.replace("epochs = 16", "epochs = 15").replace("batch_size = 1", "batch_size = 2")
    )
    with pytest.raises(
        Conflict, match=f"'{LORA}' is not one of this study: it was made with another epochs, batch_size"
    ):
        adapter_of(other, cell)


def test_a_process_that_the_system_kills_is_a_failure_of_its_cell_alone(story: Story) -> None:
    request = story.home.request(STUDY_FILE)
    cell = request.study.cells()[0]

    def kill(event: StudyEvent) -> None:
        for child in psutil.Process().children():
            child.kill()

    with pytest.raises(StepError, match="its process was killed, as the system does when memory runs out"):
        run_step(request.order("tiny-qwen2", MeasureStep(step=request.answer_step(cell))), kill)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_a_full_disk_ends_the_study_and_is_no_failure_of_one_cell(home: Home) -> None:
    request = home.request(STUDY_FILE.replace('"tiny"', '"full"'))
    step = request.answer_step(request.study.cells()[0])
    with files_of_at_most(200), pytest.raises(NoSpace, match="the disk is full"):
        run_step(request.order("tiny-qwen2", step), lambda _event: None)


def test_an_unexpected_failure_is_one_line_and_its_traceback_is_kept(home: Home) -> None:
    request = home.request(STUDY_FILE)
    step = request.answer_step(request.study.cells()[0])
    order = StepOrder(settings=request.settings, paths={"config": "/nowhere"}, step=step)
    with pytest.raises(StepError, match=r"^TypeError: .* missing 4 required positional arguments") as failed:
        run_step(order, lambda _event: None)
    assert "Traceback (most recent call last)" in failed.value.diagnostics


def test_a_plan_measures_what_is_missing_and_learns_nothing(story: Story) -> None:
    text = (
        STUDY_FILE.replace('"prefix"', '"prompt"').replace("options.prefix", "options.prompt").replace("rank = 8", "")
    )
    events: list[StudyEvent] = []
    found = forecast(story.home.request(text), events.append)
    assert [cell.done for cell in found.cells] == [True, True, True, False, True]
    missing = found.cells[3]
    assert (missing.cell, missing.reason) == ("prompt × rows, seed 7", "")
    assert missing.tuning_s and missing.answering_s and missing.trainable_parameters == 20 * 32
    assert found.seconds == missing.tuning_s + missing.answering_s
    assert 0 < found.memory_bytes < found.available_bytes and found.fits
    assert not (story.home.data / "evaluations" / "tiny-tiny-qwen2-rows.plan").exists()
    assert any(isinstance(event, SampleAnswered) for event in events)
    events.clear()
    assert forecast(story.home.request(text), events.append) == found
    assert events == []


def test_an_adapter_may_be_removed_when_it_has_answered(story: Story) -> None:
    request = story.home.request(STUDY_FILE)
    before, registry = collect(request), request.installation("tiny-qwen2").registry
    registry.remove(LORA)
    assert registry.history(LORA) == ()
    assert [row.tuning for row in collect(request).tables[0].rows] == [row.tuning for row in before.tables[0].rows]
    assert {cell.row for cell in request.study.cells() if cell.id not in done_cells(request)} == {"prefix"}
