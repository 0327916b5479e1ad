"""An evaluation killed at any moment goes on where it was, with the answers of one left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from evaluation_host import ITEMS, request

from peft_core.errors import Conflict
from peft_evaluation.generation import SampleResult
from peft_evaluation.journal import Journal
from peft_evaluation.runner import answer_all, evaluation_folder
from support.tiny_installation import tiny_installation

pytestmark = pytest.mark.torch

TESTS = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}
ALL = 4 * len(ITEMS.items)


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
        process.communicate(timeout=120)
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
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert printed.count('"answered"') == ALL - len(before)
    assert {answer.key: answer.given.texts[0] for answer in answers(tmp_path)} == alone
    assert len(answers(tmp_path)) == ALL


def test_without_resume_a_second_run_is_refused_and_with_it_strategies_are_added(tmp_path: Path) -> None:
    installation = tiny_installation(tmp_path)
    answer_all(request(strategies=("zero-shot",)), installation, lambda _event: None)
    with pytest.raises(Conflict, match="--resume"):
        answer_all(request(strategies=("rag",)), installation, lambda _event: None)
    answer_all(request(strategies=("rag",), resume=True), installation, lambda _event: None)
    assert {answer.strategy for answer in answers(tmp_path)} == {"zero-shot", "rag-bm25-2"}
