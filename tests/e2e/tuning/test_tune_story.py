"""``tune`` from end to end with the real model: while a daemon serves, and until it serves what was learned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.own_repository import OwnRepository, module
from support.running_daemon import RunningDaemon, home_environment, run_cli, start_daemon
from support.waiting import wait_until

pytestmark = [pytest.mark.model, pytest.mark.torch, pytest.mark.timeout(900)]

LEARNED = "zorgle.frobnicate"
WORDS = ("one", "two", "three", "four", "five", "six", "eight", "nine", "ten", "eleven")
"""The first two are learned, and the gate judges by the others."""


@pytest.fixture(scope="module")
def own_daemon(model_file: Path, models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon of its own: what is tuned here must not serve other tests."""
    home = tmp_path_factory.mktemp("u")
    environment = {**home_environment(home, models_dir), "PEFT_DAEMON_SHIPPED_ADAPTERS": "true"}
    yield start_daemon(home, environment)
    run_cli("stop", environment=environment)


def events(done: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.splitlines()]


def generated(daemon: RunningDaemon) -> dict[str, Any]:
    return json.loads(daemon.cli("generate", "frobnicate seven", "--max-tokens", "12", "--json").stdout)


@pytest.mark.long
def test_what_was_learned_is_served_by_the_next_request(own_daemon: RunningDaemon, tmp_path: Path) -> None:
    data = tmp_path / "own.jsonl"
    rows = [{"intent": f"frobnicate {word}", "code": f"{LEARNED}({word!r})"} for word in WORDS]
    parts = ["train"] * 2 + ["test"] * 8
    data.write_text("".join(json.dumps({**row, "split": part}) + "\n" for row, part in zip(rows, parts, strict=True)))
    before = generated(own_daemon)
    assert LEARNED not in before["text"] and before["adapter"] is None
    command = [sys.executable, "-m", "peft_daemon", "tune", "--dataset", str(data), "--name", "frob", "--json"]
    settings = ["--learning-rate", "2e-3", "--rank", "8", "--epochs", "8", "--batch-size", "2", "--threads", "1"]
    environment = {**os.environ, **own_daemon.environment}
    with subprocess.Popen([*command, *settings], env=environment, stdout=subprocess.PIPE, text=True) as tuning:
        noticed = wait_until(
            lambda: json.loads(own_daemon.cli("status", "--json").stdout)["tuning"] or tuning.poll() is not None,
            "a daemon that says that its machine is busy",
            limit_s=300,
            step_s=0.2,
        )
        assert noticed == "frob", "the daemon says that its machine is busy"
        told = events(tuning.communicate(timeout=800)[0])
    assert tuning.returncode == 0
    steps = [each for each in told if each["type"] == "step"]
    assert [each["step"] for each in steps] == list(range(1, 9))
    assert steps[-1]["loss"] < steps[0]["loss"] / 4
    assert told[-1]["type"] == "registered" and told[-1]["in_use"] == ["intent"]
    after = generated(own_daemon)
    assert after["text"].startswith(f"{LEARNED}(")
    assert (after["adapter"]["name"], after["adapter"]["digest"]) == ("frob", told[-1]["digest"])
    assert json.loads(own_daemon.cli("status", "--json").stdout)["tuning"] == ""
    card = Path(told[-1]["folder"], "README.md").read_text()
    assert "qwen2.5-coder-0.5b-instruct" in card and Path(told[-1]["folder"], "loss.svg").read_text().startswith(
        "<?xml"
    )
    shown = json.loads(own_daemon.cli("adapters", "show", "frob", "--json").stdout)["manifest"]
    assert (shown["method"], shown["rank"]) == ("lora", 8)
    # How it was held depends on the processor: in bfloat16 where that is fast.
    assert shown["quantization"].startswith("Q4_K_M, de-quantized")
    assert not Path(told[-1]["folder"], "checkpoints").exists()


def test_a_repositorys_adapter_is_kept_out_of_use_until_it_is_shown_to_help(
    own_daemon: RunningDaemon, tmp_path: Path
) -> None:
    repository = OwnRepository(tmp_path / "shop")
    for number in range(6):
        repository.commit({f"shop/module_{number}.py": module(number)}, when=1_700_000_000 + 86_400 * number)
    few = ["--max-steps", "1", "--limit", "8", "--validation-limit", "2", "--gate-holes", "2"]
    command = ["tune", "--repo", str(repository.root), *few, "--prompt-tokens", "96", "--json"]
    told = events(own_daemon.cli(*command).stdout)
    verdict = next(each for each in told if each["type"] == "verdict")
    assert [point["scale"] for point in verdict["sweep"]] == [0.0, 0.5, 0.75, 1.0]
    # It begins with the adapter that serves everywhere, and is judged against it.
    assert verdict["opponent"] == "code-fim" and verdict["served"] != verdict["base"]
    assert not verdict["activate"] and "8 are needed" in verdict["reason"]
    assert told[-1]["type"] == "registered" and told[-1]["in_use"] == []
    shown = json.loads(own_daemon.cli("adapters", "show", "shop-lora", "--json").stdout)
    assert shown["active_for"] == []
    assert "gate_p_nats" in shown["manifest"]["metrics"] and shown["manifest"]["rank"] == 8
