"""A model that is not in the catalogue, made of the real one: added, asked, and taken out again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peft_core.settings import Settings
from peft_daemon.models import catalogue
from peft_daemon.models.store import ModelStore
from peft_daemon.requantize.copy import get_recipe
from peft_daemon.requantize.optimizer import JudgingOptions, Optimizer
from support.running_daemon import home_environment, run_cli

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]


@pytest.fixture
def own_file(model_file: Path, models_dir: Path, tmp_path: Path) -> Path:
    """The real model in another quantization: other bytes, the same abilities."""
    entry = catalogue.get(Settings().model)
    store = ModelStore(models_dir, offline=True)
    optimizer = Optimizer(store, entry, Settings(), JudgingOptions(excerpts=1), lambda event: None)
    written = optimizer.write(get_recipe("q8_0")).path
    return written.rename(tmp_path / "My Coder Q8.gguf")


def test_it_is_recognised_and_answers(own_file: Path, models_dir: Path, tmp_path: Path) -> None:
    environment = home_environment(tmp_path / "h", models_dir)
    added = json.loads(run_cli("models", "add", str(own_file), "--json", environment=environment).stdout)
    assert (added["id"], added["path"]) == ("my-coder-q8", str(own_file))
    assert (added["fill_format"], added["intent_format"]) == ("qwen-fim-v1", "qwen-chat-v1")
    assert (added["family"], added["context_tokens"]) == ("qwen2", 32768)
    own = {**environment, "PEFT_DAEMON_MODEL": added["id"]}
    code = tmp_path / "a.py"
    code.write_text("def add(a, b):\n    return \n")
    where = ("--file", str(code), "--line", "2", "--column", "12", "--json")
    filled = json.loads(run_cli("complete", *where, environment=own).stdout)
    assert (filled["model"], filled["text"].startswith("a + b")) == ("my-coder-q8", True)
    said = json.loads(run_cli("generate", "add two numbers a and b", "--json", environment=own).stdout)
    assert "return a + b" in said["text"]
    run_cli("stop", environment=own)
    run_cli("models", "remove", added["id"], environment=environment)
    assert own_file.is_file()
