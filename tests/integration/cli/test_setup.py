"""``peft-daemon setup``, run as a user runs it: by a script, and on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from peft_daemon.models import catalogue
from support.running_daemon import run_cli
from support.terminal import Terminal
from support.tiny_served import tiny_gguf

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

QWEN_FIM = (
    *("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>", "<|endoftext|>"),
)
BY_HAND = "# what I want\nthreads = 1  # the others are busy\n"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A home without network, with a model of the user's own that was chosen once."""
    root = tmp_path_factory.mktemp("s")
    environment = {"PEFT_DAEMON_HOME": str(root / "h"), "PEFT_DAEMON_OFFLINE": "1"}
    model = tiny_gguf(root, context=1024, control=QWEN_FIM).path
    run_cli("models", "add", str(model), "--name", "tiny", environment=environment)
    config = config_file(environment)
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(BY_HAND)
    yield environment
    run_cli("stop", environment=environment)


def config_file(environment: Mapping[str, str]) -> Path:
    return Path(environment["PEFT_DAEMON_HOME"]) / "config" / "config.toml"


def model_of_the_user(environment: Mapping[str, str]) -> Path:
    rows = json.loads(run_cli("models", "list", "--json", environment=environment).stdout)
    return next(Path(row["path"]) for row in rows if row["id"] == "tiny")


def setup(environment: Mapping[str, str], *arguments: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(run_cli("setup", *arguments, "--json", environment=environment).stdout)
    return document


def served(environment: Mapping[str, str]) -> str:
    status: dict[str, Any] = json.loads(run_cli("status", "--json", environment=environment).stdout)
    return str(status["model"])


def test_without_a_model_nothing_is_measured_and_the_default_is_fetched(environment: dict[str, str]) -> None:
    done = run_cli("setup", environment=environment, check=False)
    assert done.returncode == 8
    assert "the network is off" in done.stderr and catalogue.entries()[0].id in done.stderr
    assert "measuring" not in done.stderr
    assert config_file(environment).read_text() == BY_HAND


def test_a_model_that_is_named_is_served_and_written_beside_the_users_own_lines(environment: dict[str, str]) -> None:
    done = setup(environment, "--model", "tiny")
    assert (done["model"], done["fetched"], done["plan"]) == ("tiny", False, None)
    assert done["settings_file"] == str(config_file(environment))
    assert config_file(environment).read_text() == BY_HAND + 'model = "tiny"\n'
    assert served(environment) == "tiny"


def test_what_was_chosen_is_taken_by_scripts_from_then_on_and_written_no_more(environment: dict[str, str]) -> None:
    before = config_file(environment).stat().st_mtime_ns
    done = setup(environment)
    assert (done["model"], done["settings_file"]) == ("tiny", "")
    assert config_file(environment).stat().st_mtime_ns == before


@pytest.mark.long
def test_the_plan_measures_this_machine_and_changes_nothing(environment: dict[str, str]) -> None:
    plan = setup(environment, "--plan")
    assert plan["in_use"] == "tiny"
    assert "tiny" in [each["id"] for each in plan["models"]]
    assert 2 <= len(plan["models"]) <= 3
    assert [each["id"] for each in plan["models"] if each["recommended"]] == [plan["recommended"]]
    assert plan["machine"]["memory_bytes"] > plan["machine"]["available_bytes"] > 0
    # A machine that runs all tests at once may be too busy to be measured.
    for each in plan["models"]:
        assert each["writing"] is None or each["writing"] > 0
        assert (each["first_suggestion_s"] is None) == (each["writing"] is None)
    assert config_file(environment).read_text() == BY_HAND + 'model = "tiny"\n'


def test_a_model_that_cannot_be_fetched_is_not_chosen(environment: dict[str, str]) -> None:
    done = run_cli("setup", "--model", catalogue.entries()[1].id, environment=environment, check=False)
    assert done.returncode == 8
    assert 'model = "tiny"' in config_file(environment).read_text()
    assert served(environment) == "tiny"


@pytest.mark.long
def test_a_model_that_the_engine_cannot_load_is_not_kept(environment: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model_of_the_user(environment).read_bytes().replace(b"qwen2", b"qwen9"))
    run_cli("models", "add", str(broken), "--name", "broken", "--no-check", environment=environment)
    done = run_cli("setup", "--model", "broken", environment=environment, check=False)
    assert done.returncode == 7
    assert "could not load the model" in done.stderr and done.stderr.count("peft-daemon doctor") <= 1
    assert 'model = "tiny"' in config_file(environment).read_text()
    assert setup(environment)["model"] == "tiny"


def test_options_that_contradict_each_other_are_refused(environment: dict[str, str]) -> None:
    done = run_cli("setup", "--plan", "--yes", environment=environment, check=False)
    assert done.returncode == 2
    assert "changes nothing" in done.stderr


@pytest.fixture
def terminal(environment: dict[str, str], tmp_path: Path) -> Iterator[Terminal]:
    shown = Terminal([sys.executable, "-m", "peft_daemon", "setup"], environment, tmp_path)
    yield shown
    shown.close()


def test_on_a_terminal_it_shows_the_models_and_asks_once(environment: dict[str, str], terminal: Terminal) -> None:
    asked = terminal.wait(r"Which one\? \[\d\]:")
    assert "recommended: " in asked and "first suggestion" in asked
    (number,) = [line.split()[0] for line in asked.splitlines() if " tiny " in line]
    terminal.type("9")
    terminal.keys("Enter")
    terminal.wait("type a number from 1 to")
    terminal.type(number)
    terminal.keys("Enter")
    done = terminal.wait("ready after")
    assert "model    tiny (already here)" in done and "names it" in done
    assert config_file(environment).read_text() == BY_HAND + 'model = "tiny"\n'


@pytest.mark.long
def test_enter_keeps_what_is_in_use(environment: dict[str, str], terminal: Terminal) -> None:
    terminal.wait(r"Which one\? \[\d\]:")
    terminal.keys("Enter")
    terminal.wait("model    tiny")
