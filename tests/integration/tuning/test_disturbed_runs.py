"""Whole runs that are killed, or find the disk full, and are resumed: nothing is lost, and the result is the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.timeout(1800)]

HOST = Path(__file__).parents[2] / "support/disturbed_tuning.py"
DISK_BYTES = 30_000_000
KILLS = int(os.environ.get("PEFT_DAEMON_KILLS", "60"))


def disturbed(kind: str, folder: Path, *, seed: int, count: int) -> dict[str, Any]:
    """What the host saw, on a small disk of its own where that is to be full."""
    (folder / "disk").mkdir()
    small = ["bwrap", "--dev-bind", "/", "/", "--size", str(DISK_BYTES), "--tmpfs", str(folder / "disk")]
    command = [sys.executable, str(HOST), kind, str(folder / "disk"), str(seed), str(count)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HOST.parents[1]), *filter(None, sys.path)]),
        "TMPDIR": str(folder),
    }
    done = subprocess.run(
        [*(small if kind != "kill" else ()), *command], check=False, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"\n{kind}: {found}")
    return found


needs_a_small_disk = pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")


@needs_a_small_disk
def test_a_few_runs_that_are_killed_or_find_the_disk_full_lose_nothing_and_end_with_the_same_bytes(
    tmp_path: Path,
) -> None:
    found = disturbed("both", tmp_path, seed=2, count=2)
    assert found["kills"] == 2 and found["exit 9"] > 0


@pytest.mark.long
def test_runs_that_are_killed_at_any_moment_lose_nothing_and_end_with_the_same_bytes(tmp_path: Path) -> None:
    assert disturbed("kill", tmp_path, seed=60, count=KILLS)["kills"] == KILLS


@pytest.mark.long
@needs_a_small_disk
def test_runs_that_find_the_disk_full_say_so_lose_nothing_and_go_on_with_room(tmp_path: Path) -> None:
    assert disturbed("full", tmp_path, seed=60, count=KILLS)["exit 9"] > 0
