"""A fresh installation completes with the adapters that come with the package, and they are the user's to change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.running_daemon import RunningDaemon, home_environment, run_cli, start_daemon

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[3]
FILE = (
    "def mean(numbers):\n"
    '    """The arithmetic mean; 0 for no numbers."""\n'
    "    if not numbers:\n"
    "        return 0\n"
    "    return {}\n"
    "\n"
    "\n"
    "print(mean([1, 2, 3]))\n"
)


@pytest.fixture(scope="module")
def fresh(model_file: Path, models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon as ``setup`` leaves it in an empty home."""
    home = tmp_path_factory.mktemp("f")
    environment = home_environment(home, models_dir) | {"PEFT_DAEMON_SHIPPED_ADAPTERS": "true"}
    run_cli("setup", environment=environment)
    yield start_daemon(home, environment)
    run_cli("stop", environment=environment)


def names(daemon: RunningDaemon) -> dict[str, list[str]]:
    rows: list[dict[str, Any]] = json.loads(daemon.cli("adapters", "list", "--json").stdout)
    return {row["name"]: row["active_for"] for row in rows}


def fill(daemon: RunningDaemon) -> dict[str, Any]:
    prefix, suffix = FILE.split("{}")
    with daemon.http() as http:
        answer: dict[str, Any] = http.post("/v1/complete", json={"prefix": prefix, "suffix": suffix}).json()
    return answer


def test_one_fills_in_and_the_base_answers_sentences(fresh: RunningDaemon) -> None:
    assert names(fresh) == {"conala": [], "python-fim": ["fill"]}
    answer = json.loads(fresh.cli("generate", "find all files larger than 10 MB below a directory", "--json").stdout)
    assert answer["adapter"] is None
    assert "os.walk(" in answer["text"]
    compile(answer["text"], "answer", "exec")


def test_a_hole_is_filled_by_its_adapter_which_ends_where_the_hole_ends(fresh: RunningDaemon) -> None:
    answer = fill(fresh)
    assert answer["adapter"]["name"] == "python-fim"
    assert answer["text"].strip() == "sum(numbers) / len(numbers)"


def test_a_sentence_is_answered_by_the_adapter_that_was_chosen_for_it(fresh: RunningDaemon) -> None:
    fresh.cli("adapters", "use", "conala")
    assert names(fresh) == {"conala": ["intent"], "python-fim": ["fill"]}
    answer = json.loads(fresh.cli("generate", "sort list `xs` in reverse order", "--json").stdout)
    assert answer["adapter"]["name"] == "conala"
    compile(answer["text"], "answer", "exec")
    assert fill(fresh)["adapter"]["name"] == "python-fim"


def test_who_wants_the_base_gets_it_and_keeps_it(fresh: RunningDaemon) -> None:
    fresh.cli("adapters", "use", "base", "--task", "fill")
    assert fill(fresh)["adapter"] is None
    fresh.cli("setup")
    assert names(fresh) == {"conala": ["intent"], "python-fim": []}
    fresh.cli("adapters", "use", "python-fim", "--task", "fill")
    assert fill(fresh)["adapter"]["name"] == "python-fim"
