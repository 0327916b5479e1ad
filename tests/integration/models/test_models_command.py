"""``peft-daemon models``, run as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from model_servers import FileServer

from peft_daemon.models import catalogue

DEFAULT = "qwen2.5-coder-0.5b-instruct"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEFT_DAEMON_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def _models(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "peft_daemon", "models", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def test_list_shows_the_whole_catalogue_and_that_nothing_is_installed() -> None:
    done = _models("list", "--json")
    rows = json.loads(done.stdout)
    assert done.returncode == 0
    assert [(row["id"], row["bytes"], row["sha256"], row["installed"]) for row in rows] == [
        (entry.id, entry.bytes, entry.sha256, False) for entry in catalogue.entries()
    ]
    assert [row["id"] for row in rows if row["chosen"]] == [DEFAULT]


def test_list_for_people_names_every_model_on_a_line_of_its_own() -> None:
    lines = _models("list").stdout.splitlines()
    for entry in catalogue.entries():
        assert any(line.startswith(entry.id) and line.endswith("not installed") for line in lines)


def test_list_tells_how_far_an_interrupted_pull_got(own_home: Path) -> None:
    entry = catalogue.get(DEFAULT)
    staging = own_home / "cache" / "models" / ".staging" / entry.id
    staging.mkdir(parents=True)
    with (staging / f"{entry.sha256[:16]}.partial").open("wb") as file:
        file.truncate(entry.bytes // 4)  # sparse: takes no room
    assert json.loads(_models("list", "--json").stdout)[0]["staged_bytes"] == entry.bytes // 4
    assert "25% fetched" in _models("list").stdout


@pytest.mark.parametrize("verb", ["pull", "remove"])
def test_an_unknown_id_ends_with_not_found_and_the_closest_one(verb: str) -> None:
    done = _models(verb, "qwen2.5-coder-0.5b-instuct")
    assert (done.returncode, done.stdout) == (3, "")
    assert DEFAULT in done.stderr
    assert "peft-daemon models list" in done.stderr


def test_removing_what_is_not_there_ends_with_not_found() -> None:
    done = _models("remove", DEFAULT, "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["code"] == "not_found"


@pytest.mark.parametrize("how", ["option", "environment"])
def test_offline_pull_fails_without_touching_hub_or_index(
    hub: FileServer, index: FileServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "environment":
        monkeypatch.setenv("PEFT_DAEMON_OFFLINE", "1")
    done = _models("pull", DEFAULT, "--json", *(["--offline"] if how == "option" else []))
    assert done.returncode == 8
    assert "--from FILE" in json.loads(done.stdout)["error"]["fix"]
    assert hub.served == []
    assert index.served == []


def test_a_failed_pull_prints_notes_and_one_error_line_on_stderr_only(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"GGUF")
    done = _models("pull", DEFAULT, "--from", str(wrong))
    assert (done.returncode, done.stdout) == (8, "")
    errors = [line for line in done.stderr.splitlines() if line.startswith("peft-daemon: ")]
    assert len(errors) == 1
    assert "has 4 bytes" in errors[0]


@pytest.mark.parametrize("verb", ["list", "pull", "remove"])
def test_help_has_an_example(verb: str) -> None:
    assert f"Example: peft-daemon models {verb}" in _models(verb, "--help").stdout


@pytest.mark.model
def test_a_model_can_be_pulled_from_a_file_used_offline_and_removed(model_file: Path, own_home: Path) -> None:
    pulled = _models("pull", DEFAULT, "--from", str(model_file), "--json")
    assert pulled.returncode == 0
    path = Path(json.loads(pulled.stdout)["path"])
    assert path.is_relative_to(own_home)
    assert json.loads(_models("list", "--json").stdout)[0]["path"] == str(path)
    again = _models("pull", DEFAULT, "--offline", "--json")
    assert json.loads(again.stdout) == json.loads(pulled.stdout)
    removed = _models("remove", DEFAULT, "--json")
    assert json.loads(removed.stdout)["freed_bytes"] >= catalogue.get(DEFAULT).bytes
    assert not path.exists()
