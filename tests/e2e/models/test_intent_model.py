"""A model of its own for sentences, beside the real one: set, asked, shown by commands, and ended with the daemon."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from peft_core.settings import Settings
from support.running_daemon import home_environment, run_cli
from support.tiny_served import tiny_gguf

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]

CONTROL = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>")
ENDS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def test_the_real_model_fills_in_and_another_answers_sentences(
    model_file: Path, models_dir: Path, tmp_path: Path
) -> None:
    home = tmp_path / "h"
    environment = home_environment(home, models_dir)
    tiny = tiny_gguf(tmp_path, context=2048, control=(*CONTROL, *ENDS)).path
    added = json.loads(
        run_cli("models", "add", str(tiny), "--name", "talker", "--no-check", "--json", environment=environment).stdout
    )
    both = {**environment, "PEFT_DAEMON_INTENT_MODEL": added["id"]}
    code = tmp_path / "a.py"
    code.write_text("def add(a, b):\n    return \n")
    where = ("--file", str(code), "--line", "2", "--column", "12", "--json")
    try:
        filled = json.loads(run_cli("complete", *where, environment=both).stdout)
        assert (filled["model"], filled["text"].startswith("a + b")) == (Settings().model, True)
        status = json.loads(run_cli("status", "--json", environment=both).stdout)
        assert (status["engine"]["state"], status["intent_engine"]["state"]) == ("ready", "unloaded")
        assert "not loaded" in run_cli("status", environment=both).stdout
        said = json.loads(
            run_cli("generate", "add two numbers", "--max-tokens", "4", "--json", environment=both).stdout
        )
        assert said["model"] == "talker"
        status = json.loads(run_cli("status", "--json", environment=both).stdout)
        engines = [status[each]["pid"] for each in ("engine", "intent_engine")]
        assert all(map(psutil.pid_exists, engines)) and len({*engines}) == 2
        checks = json.loads(run_cli("doctor", "--json", environment=both).stdout)["checks"]
        found = {check["name"]: check for check in checks}
        assert found["sentences"]["ok"] and "talker" in found["sentences"]["detail"]
        assert "engine for sentences ready" in found["daemon"]["detail"]
        listed = json.loads(run_cli("models", "list", "--json", environment=both).stdout)
        assert {row["id"]: (row["chosen"], row["chosen_for_sentences"]) for row in listed if row["installed"]} == {
            Settings().model: (True, False),
            "talker": (False, True),
        }
    finally:
        run_cli("stop", environment=both)
    assert not any(map(psutil.pid_exists, engines))
