"""The whole typing benchmark, as a user starts it: it ends, and its report has figures for every policy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT_S = 5400

pytestmark = [pytest.mark.long, pytest.mark.model, pytest.mark.timeout(LIMIT_S + 60)]


def test_a_full_run_reports_every_policy(model_file: Path, models_dir: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "PEFT_DAEMON_HOME": str(tmp_path / "h"), "PEFT_DAEMON_MODELS_DIR": str(models_dir)}
    command = [sys.executable, "-m", "peft_daemon", "bench", "typing", "--output", str(tmp_path / "run")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    report = next((tmp_path / "run").glob("*.md")).read_text(encoding="utf-8")
    assert "ours" in report and "llama.vscode" in report
