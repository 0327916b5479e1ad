"""The typing benchmark on the real model: every policy types a line, and the command reports it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest

from peft_core.errors import Cancelled
from peft_daemon.engines.llamacpp.child import CHILD_MODULE
from peft_evaluation.typing_benchmark.policies.base import BenchModel
from peft_evaluation.typing_benchmark.policies.catalogue import POLICIES
from peft_evaluation.typing_benchmark.replay import replay
from support.running_daemon import processes
from support.typed_file import short_trace
from support.waiting import wait_until

pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=pytest.mark.long) if each == "ours-base" else each for each in POLICIES]
)
async def test_a_policy_suggests_the_line_that_is_missing(name: str, model_file: Path, tmp_path: Path) -> None:
    engine = BenchModel(model_file.parent.name, model_file, 1)
    trace = short_trace(tmp_path, keys=30, wait_s=0.05)
    found = await replay(trace, name, lambda workspace: POLICIES[name].open(engine, workspace), lambda *_: None)
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found
    last = found.keystrokes[-1]
    assert last.shown_ms is not None, found
    # On a busy machine only the beginning of the line may be there yet.
    assert last.text.startswith("return first"[: len(last.text)]), last
    assert last.judged.right > 0
    assert found.totals.cpu_s > 0
    assert (found.totals.prompt_evaluated or 0) > 0
    assert (found.totals.decoded or 0) > 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no catchable SIGTERM")
def test_a_run_that_is_terminated_leaves_no_daemon_behind(model_file: Path, models_dir: Path, tmp_path: Path) -> None:
    command = (sys.executable, "-m", "peft_daemon", "bench", "typing", "--quick", "--policy", "ours")
    with tempfile.TemporaryDirectory(prefix="pd-") as short:  # a socket's path has room for 103 bytes
        environment = {**os.environ, "PEFT_DAEMON_MODELS_DIR": str(models_dir), "TMPDIR": short}
        run = subprocess.Popen((*command, "--output", str(tmp_path)), env=environment, stderr=subprocess.PIPE)
        wait_until(
            lambda: processes(Path(short), CHILD_MODULE) or run.poll() is not None, "an engine", limit_s=300, step_s=0.2
        )
        assert run.poll() is None
        run.send_signal(signal.SIGTERM)
        _, said = run.communicate(timeout=120)
        assert (run.returncode, processes(Path(short))) == (Cancelled.exit_code, [])
    assert b"--resume" in said
