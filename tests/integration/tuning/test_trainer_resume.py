"""A run that is ended at any moment and resumed gives the very bytes of one that was left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import tiny_run, tuning_host

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]

TESTS = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]),
}
CODES = {"kill": [-signal.SIGKILL, 0], "terminate": [tuning_host.CANCELLED, 0], "interrupt": [tuning_host.CANCELLED, 0]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("moments")
    command = [sys.executable, str(TESTS / "support/tuning_host.py"), "moments", str(folder)]
    done = subprocess.run(command, check=False, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
    return {each["name"]: {**each, "stderr": done.stderr} for each in told}


def test_an_uninterrupted_run_learns_and_keeps_its_best(runs: dict[str, Any]) -> None:
    reference = runs["nothing"]
    assert reference["codes"] == [0], reference["stderr"]
    losses = [loss for _step, loss in reference["told"]["losses"]]
    assert len(losses) == 12
    assert losses[-1] < losses[0] - 0.1
    evaluations = dict(reference["told"]["evaluations"])
    assert sorted(evaluations) == [3, 6, 9, 12]
    assert reference["told"]["best_step"] == min(evaluations, key=lambda step: evaluations[step])


@pytest.mark.parametrize("moment", tuning_host.MOMENTS)
def test_a_resumed_run_ends_with_the_same_bytes(runs: dict[str, Any], moment: str) -> None:
    reference, run = runs["nothing"], runs[moment]
    expected = CODES.get(moment.split(maxsplit=1)[0], [tuning_host.CANCELLED, -signal.SIGKILL, -signal.SIGKILL, 0])
    assert run["codes"] == expected, run["stderr"]
    assert tiny_run.adapter_bytes(Path(run["folder"], "adapter")) == tiny_run.adapter_bytes(
        Path(reference["folder"], "adapter")
    )
    assert run["told"] == reference["told"]


def test_nothing_half_written_is_left(runs: dict[str, Any]) -> None:
    for run in runs.values():
        names = [path.name for path in Path(run["folder"]).rglob("*")]
        assert not [name for name in names if name.startswith(".")]
        assert len([name for name in names if name.startswith("step-")]) == 2


@pytest.mark.long
def test_two_processes_follow_the_loss_curve_of_one(tmp_path: Path) -> None:
    host = str(TESTS / "support/tuning_host.py")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    told = []
    for name, launcher in (("one", []), ("two", torchrun)):
        command = [sys.executable, *launcher, host, "run", str(tmp_path / name)]
        subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, timeout=600)
        told.append(json.loads((tmp_path / name / "told.json").read_text()))
    one, two = told
    # Batches of 3: the processes' shares differ in size, and the last batch of an epoch is for one of them alone.
    assert dict(two["losses"]) == pytest.approx(dict(one["losses"]), rel=1e-4)
    assert dict(two["evaluations"]) == pytest.approx(dict(one["evaluations"]), rel=1e-4)
    assert two["best_step"] == one["best_step"]
    assert len(one["losses"]) == 16
