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
    """What the host saw; ``folder`` is a disk of its own where it is to be full."""
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
        [*(small if kind == "full" else ()), *command], check=False, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"\n{kind}: {found}")
    return found


needs_a_small_disk = pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")


@pytest.mark.parametrize("count", [2, pytest.param(KILLS, marks=pytest.mark.long)])
def test_runs_that_are_killed_at_any_moment_lose_nothing_and_end_with_the_same_bytes(
    tmp_path: Path, count: int
) -> None:
    assert disturbed("kill", tmp_path, seed=count, count=count)["kills"] == count


@needs_a_small_disk
@pytest.mark.parametrize("count", [2, pytest.param(KILLS, marks=pytest.mark.long)])
def test_runs_that_find_the_disk_full_say_so_lose_nothing_and_go_on_with_room(tmp_path: Path, count: int) -> None:
    assert disturbed("full", tmp_path, seed=count, count=count)["exit 9"] > 0
