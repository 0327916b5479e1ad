"""The command line against a real daemon: what a user types, sees and gets as an exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.running_daemon import RunningDaemon

pytestmark = pytest.mark.model

SOURCE = "def add(a, b):\n    return \n\n\nprint(add(1, 2))\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sums.py"
    path.write_text(SOURCE)
    return path


def answer(daemon: RunningDaemon, *arguments: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(daemon.cli(*arguments, "--json").stdout)
    return document


def test_complete_fills_the_hole_at_a_1_based_position(daemon: RunningDaemon, file: Path) -> None:
    result = answer(daemon, "complete", "--file", str(file), "--line", "2", "--column", "12", "--max-tokens", "16")
    assert result["text"].strip() == "a + b"
    assert {"text", "adapter", "model", "finish_reason", "timings"} <= result.keys()
    assert file.read_text() == SOURCE


def test_generate_writes_code_and_says_what_it_used_on_stderr(daemon: RunningDaemon) -> None:
    result = daemon.cli("generate", "add two numbers", "--max-tokens", "40")
    assert "def" in result.stdout or "+" in result.stdout
    assert "```" not in result.stdout
    assert "no adapter" in result.stderr and "tok/s" in result.stderr


def test_generate_json_has_the_promised_fields(daemon: RunningDaemon) -> None:
    result = answer(daemon, "generate", "reverse the string s", "--max-tokens", "24")
    assert {"text", "adapter", "model", "finish_reason", "timings"} <= result.keys()
    assert result["model"] == "qwen2.5-coder-0.5b-instruct"


def bad_file(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "bad.py"
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(
    ("content", "line", "column", "code", "says"),
    [
        (b"x = 1\n", 9, 1, 2, "--line 1 to 2"),
        (b"x = 1\n", 0, 1, 2, "--line 1 to 2"),
        (b"x = 1\n", -5, 1, 2, "--line 1 to 2"),
        (b"x = 1\n", 1, 7, 2, "--column 1 to 6"),
        (b"x = 1\n", 1, 10**30, 2, "--column 1 to 6"),
        (b"x = 1\r\ny\r\n", 1, 7, 2, "--column 1 to 6"),
        (b"\xff\xfe\x00x", 1, 1, 2, "UTF-8"),
        (b"a\x00b", 1, 1, 2, "binary"),
        (b"x = 1\n" * 3_500_000, 1, 1, 2, "limit"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_bad_files_and_positions_are_one_line_with_the_fix(
    daemon: RunningDaemon, tmp_path: Path, content: bytes, line: int, column: int, code: int, says: str
) -> None:
    result = daemon.cli(
        *("complete", "--file", bad_file(tmp_path, content), "--line", str(line), "--column", str(column)), check=False
    )
    assert result.returncode == code
    assert says in result.stderr
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("generate", ""), 2, "the intent is empty"),
        (("generate", "  \n "), 2, "the intent is empty"),
        (("generate", "x", "--max-tokens", "-1"), 2, "--max-tokens"),
        (("generate", "x", "--max-tokens", "99999999999999999999"), 2, "--max-tokens"),
        (("generate", "x", "--temperature", "-1"), 2, "--temperature"),
        (("generate", "x", "--temperature", "nan"), 2, "--temperature"),
        (("generate", "x", "--scale", "1e9"), 2, "--scale"),
        (("generate", "x", "--adapter", "nothing-like-it"), 3, "adapters list"),
        (("complete", "--file", "/no/such/file.py", "--line", "1", "--column", "1"), 3, "no file"),
        (("models", "pull", "qwen-9000b"), 3, "models list"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line_with_the_fix_and_an_exit_code(
    daemon: RunningDaemon, arguments: tuple[str, ...], code: int, says: str
) -> None:
    result = daemon.cli(*arguments, check=False)
    assert result.returncode == code, result.stderr
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    as_json = daemon.cli(*arguments, "--json", check=False)
    assert as_json.returncode == code
    assert json.loads(as_json.stdout)["error"]["fix"]


def test_a_setting_that_makes_no_sense_is_named_with_its_source(daemon: RunningDaemon) -> None:
    from support.running_daemon import run_cli

    environment = {**daemon.environment, "PEFT_DAEMON_THREADS": "many"}
    result = run_cli("config", environment=environment, check=False)
    assert result.returncode == 2
    assert "'threads'" in result.stderr and "environment" in result.stderr


def test_config_says_where_each_value_comes_from(daemon: RunningDaemon) -> None:
    rows = {row["name"]: row for row in json.loads(daemon.cli("config", "--json").stdout)}
    assert rows["models_dir"]["source"] == "environment"
    assert rows["threads"]["source"] == "default"
    assert all(row["description"] for row in rows.values())


def test_doctor_checks_by_using_and_finds_nothing_wrong(daemon: RunningDaemon) -> None:
    checks = {c["name"]: c for c in answer(daemon, "doctor")["checks"]}
    assert all(c["ok"] for c in checks.values()), checks
    assert "sha256 verified" in checks["model"]["detail"]
    assert "tok/s" in checks["engine"]["detail"]
    assert "engine ready" in checks["daemon"]["detail"]


def test_doctor_names_the_command_when_the_model_is_missing(tmp_path: Path) -> None:
    from support.running_daemon import home_environment, run_cli

    result = run_cli("doctor", "--json", environment=home_environment(tmp_path, tmp_path / "empty"), check=False)
    model = next(c for c in json.loads(result.stdout)["checks"] if c["name"] == "model")
    assert result.returncode == 1
    assert "models pull" in model["fix"]


def test_status_shows_engine_and_memory(daemon: RunningDaemon) -> None:
    status = answer(daemon, "status")
    assert status["engine"]["state"] == "ready"
    assert status["pid"] > 1


COMMANDS = [
    *("setup", "serve", "start", "stop", "status", "doctor", "lsp", "complete", "generate", "config"),
    *("models list", "models pull", "models remove"),
    *(f"adapters {verb}" for verb in ("list", "show", "use", "unset", "rollback", "import", "export", "remove")),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(daemon: RunningDaemon, command: str) -> None:
    text = daemon.cli(*command.split(), "--help").stdout
    assert "Example" in text and f"peft-daemon {command}" in text
    if command not in ("serve", "lsp"):
        assert "--json" in text
