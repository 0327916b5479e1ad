"""What ``peft-daemon tune`` refuses, before anything is loaded, and what it says then."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import peft_cli
from peft_core import processes
from peft_core.paths import Paths
from peft_daemon.adapters.registry import AdapterRegistry
from support.synthetic_adapter import TinyModel, lora, write_peft

pytestmark = pytest.mark.torch


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"intent": f"add {n}", "code": f"x + {n}"}) + "\n" for n in range(20)))
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEFT_DAEMON_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def with_model(home: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEFT_DAEMON_MODELS_DIR", str(models_dir))
    return home


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Code, message and fix of the refusal, as one text."""
    monkeypatch.setattr(sys, "argv", ["peft-daemon", "tune", *arguments, "--json"])
    # Changes the environment of the process for good.
    monkeypatch.setattr(processes, "distrust_working_folder", lambda: None)
    with pytest.raises(SystemExit) as left:
        peft_cli.main()
    assert left.value.code not in (0, None)
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["fix"], "every refusal says what to do next"
    return f"{error['code']}: {error['message']}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "exactly one of --dataset, --repo and --code"),
        (("--dataset", "conala", "--repo", "."), "exactly one of"),
        (("--dataset", "nothing-like-that"), "nothing-like-that"),
        (("--dataset", "DATA", "--method", "magic"), "lora, qlora-4bit, qlora-8bit, ia3, prompt, prefix, full"),
        (("--dataset", "DATA", "--method", "prefix", "--gradient-checkpointing"), "checkpointing"),
        (("--dataset", "DATA", "--method", "ia3", "--rank", "4"), "rank"),
        (("--dataset", "DATA", "--learning-rate", "-1"), "--learning-rate"),
        (("--dataset", "DATA", "--resume"), "no run to resume"),
        (("--dataset", "DATA", "--base", "no-such-model"), "no model 'no-such-model'"),
        (("--dataset", "DATA", "--budget", "5m"), "--budget goes with --repo only"),
        (("--dataset", "DATA", "--start", "absent"), "absent"),
        (("--dataset", "DATA", "--edits"), "--edits goes with --repo or --code"),
        (("--repo", ".", "--budget", "soon"), "'soon' is not a time"),
        (("--repo", ".", "--start", "no-such-adapter", "--plan"), "no adapter 'no-such-adapter'"),
    ],
)
def test_what_cannot_work_is_said_with_the_way_out(
    with_model: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    given = [str(data) if each == "DATA" else each for each in arguments]
    assert words in said(capsys, monkeypatch, *given)
    assert not Paths.from_environment().adapters.exists(), "nothing is registered"


def test_a_missing_base_is_said_with_the_command_that_fetches_it(
    home: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEFT_DAEMON_MODELS_DIR", str(home / "empty"))
    message = said(capsys, monkeypatch, "--dataset", str(data))
    assert "peft-daemon models pull qwen2.5-coder-0.5b-instruct" in message


def test_a_folder_without_git_is_refused_as_a_repository(
    with_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain").mkdir()
    assert "git" in said(capsys, monkeypatch, "--repo", str(tmp_path / "plain"))


def test_a_name_that_is_taken_is_refused_before_anything_is_loaded(
    with_model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = TinyModel.random().write(tmp_path / "base.gguf")
    AdapterRegistry(Paths.from_environment().adapters).import_(
        write_peft(tmp_path / "folder", lora()), name="mine", base=base
    )
    message = said(capsys, monkeypatch, "--dataset", str(data), "--name", "mine")
    assert "an adapter 'mine' exists" in message and "--update" in message
