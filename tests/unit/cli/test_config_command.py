"""``peft-daemon config``: a setting is shown with what it may be, and written into the user's own file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from peft_cli.config import app
from peft_core.errors import InvalidInput
from peft_core.settings import Settings


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEFT_DAEMON_HOME", str(tmp_path))
    return tmp_path / "config" / "config.toml"


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def rows() -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(call("--json"))}


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("threads", "4", 4),
        ("repository_context", "-1", -1),
        ("look_ahead", "false", False),
        ("wait_policy", "active", "active"),
        ("upstream_url", "https://gpu.example.com:8000", "https://gpu.example.com:8000"),
    ],
)
def test_what_is_set_counts_and_what_is_unset_does_not(file: Path, name: str, typed: str, value: object) -> None:
    told = json.loads(call("set", name, typed, "--json"))
    assert (told["value"], told["source"], told["changed"]) == (value, "user file", True)
    assert (rows()[name]["value"], rows()[name]["source"]) == (value, "user file")
    assert json.loads(call("unset", name, "--json"))["source"] == "default"
    assert file.read_text() == ""
    assert rows()[name]["value"] == rows()[name]["default"] == getattr(Settings(), name)


def test_every_setting_says_what_it_may_be() -> None:
    shown = {name: row["allowed"] for name, row in rows().items()}
    assert shown["threads"] == {"type": "integer", "minimum": 0, "maximum": 1024}
    assert shown["wait_policy"] == {"type": "string", "enum": ["auto", "active", "passive"]}
    assert shown["look_ahead"] == {"type": "boolean"}
    assert all("type" in each for each in shown.values())


@pytest.mark.parametrize(("name", "value"), [("threads", "many"), ("threads", "-1"), ("engine", "steam"), ("no", "1")])
def test_a_value_that_is_not_allowed_writes_nothing(file: Path, name: str, value: str) -> None:
    with pytest.raises(InvalidInput):
        call("set", name, value)
    assert not file.exists()


def test_a_variable_that_wins_over_the_file_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFT_DAEMON_THREADS", "2")
    said = call("set", "threads", "4")
    assert "threads = 2 (environment)" in said and "PEFT_DAEMON_THREADS wins over" in said
