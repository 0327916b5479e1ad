"""An evaluation killed at any moment goes on where it was, with the answers of one left alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

import psutil
import pytest
from evaluation_host import ITEMS, request

from peft_core.errors import Conflict
from peft_evaluation.generation import SampleResult
from peft_evaluation.journal import Journal
from peft_evaluation.report.store import read_report
from peft_evaluation.runner import answer_all, evaluation_folder
from support.tiny_installation import tiny_installation
from support.waiting import wait_until

pytestmark = pytest.mark.torch

TESTS = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}
ALL = 4 * len(ITEMS.items)
KILLS = int(os.environ.get("PEFT_DAEMON_KILLS", "20"))


def host(home: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).with_name("evaluation_host.py")), str(home), *options]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)


def answers(home: Path) -> list[SampleResult]:
    return list(Journal(evaluation_folder(tiny_installation(home), "sums") / "answers.jsonl", SampleResult).read())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, int, str], str]]:
    """The texts of a run that nothing interrupted."""
    home = tmp_path_factory.mktemp("alone")
    with host(home) as process:
        process.communicate(timeout=300)
    assert process.returncode == 0
    found = answers(home)
    assert len(found) == ALL
    assert all(answer.given.answer_tokens > 0 for answer in found)
    yield {answer.key: answer.given.texts[0] for answer in found}


@pytest.mark.parametrize(
    ("after", "number"), [(1, signal.SIGKILL), pytest.param(9, signal.SIGINT, marks=pytest.mark.long)]
)
def test_after_an_interruption_nothing_is_lost_and_nothing_asked_twice(
    tmp_path: Path, alone: dict[tuple[str, int, str], str], after: int, number: signal.Signals
) -> None:
    with host(tmp_path) as process:
        assert process.stdout is not None
        answered = (line for line in iter(process.stdout.readline, "") if '"answered"' in line)
        assert len(list(islice(answered, after))) == after
        process.send_signal(number)
    assert process.returncode != 0
    before = answers(tmp_path)
    assert len(before) >= min(after, ALL)
    with host(tmp_path, "--resume") as process:
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert printed.count('"answered"') == ALL - len(before)
    assert {answer.key: answer.given.texts[0] for answer in answers(tmp_path)} == alone
    assert len(answers(tmp_path)) == ALL


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_an_evaluation_that_is_killed_again_and_again_keeps_every_answer_and_comes_to_its_report(
    tmp_path: Path, alone: dict[tuple[str, int, str], str]
) -> None:
    draw, kills, number = Random(20), 0, 0
    while kills < KILLS:
        home, number = tmp_path / f"home{number}", number + 1
        code, kept = 1, 0
        while code != 0:
            begun = (evaluation_folder(tiny_installation(home), "sums") / "run.json").exists()
            with host(home, "--report", *(["--resume"] if begun else [])) as process:
                if kills < KILLS:
                    # After some lines, a moment later; few of them end before.
                    assert process.stdout is not None
                    for _ in islice(iter(process.stdout.readline, ""), draw.randrange(ALL + 4)):
                        pass
                    time.sleep(draw.uniform(0, 0.3))
                    process.kill()
                process.communicate(timeout=300)
            code = process.returncode
            assert code in (0, -signal.SIGKILL)
            kills += code != 0
            wait_until(lambda home=home: not engines_of(home), "the end of the engine")
            found = {answer.key: answer.given.texts[0] for answer in answers(home)}
            assert found.items() <= alone.items() and len(found) >= kept
            kept = len(found)
            if (evaluation_folder(tiny_installation(home), "sums") / "report.json").exists():
                assert len(read_report(evaluation_folder(tiny_installation(home), "sums")).strategies) == 3
        assert found == alone and len(answers(home)) == ALL
        report = evaluation_folder(tiny_installation(home), "sums")
        assert read_report(report).strategies and (report / "report.html").exists()
    print(f"\n{kills} kills, {number} evaluations")


def engines_of(home: Path) -> list[int]:
    """Processes that have a file of this home open, or are told of it."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if str(home) in " ".join(process.info["cmdline"] or ()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def test_without_resume_a_second_run_is_refused_and_with_it_strategies_are_added(tmp_path: Path) -> None:
    installation = tiny_installation(tmp_path)
    answer_all(request(strategies=("zero-shot",)), installation, lambda _event: None)
    with pytest.raises(Conflict, match="--resume"):
        answer_all(request(strategies=("rag",)), installation, lambda _event: None)
    answer_all(request(strategies=("rag",), resume=True), installation, lambda _event: None)
    assert {answer.strategy for answer in answers(tmp_path)} == {"zero-shot", "rag-bm25-2"}
