"""A repository learned in the background with the real model: it gives way to a completion, and ends with a verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.favoured import favour
from support.own_repository import OwnRepository, module
from support.running_daemon import RunningDaemon, home_environment, run_cli, start_daemon
from support.waiting import wait_until

pytestmark = [pytest.mark.model, pytest.mark.torch, pytest.mark.long, pytest.mark.timeout(3600)]

RUN_LIMIT_S = 3_000.0


@pytest.fixture
def own_daemon(model_file: Path, models_dir: Path, tmp_path: Path) -> Iterator[RunningDaemon]:
    """A daemon of its own: what is learned here must not serve other tests."""
    environment = {**home_environment(tmp_path / "u", models_dir), "PEFT_DAEMON_SHIPPED_ADAPTERS": "true"}
    yield start_daemon(tmp_path / "u", environment)
    run_cli("stop", environment=environment)


def test_a_repository_is_learned_while_nobody_types(own_daemon: RunningDaemon, tmp_path: Path) -> None:
    shop = OwnRepository(tmp_path / "shop")
    for number in range(12):
        shop.commit({f"shop/module_{number}.py": module(number)}, when=1_700_000_000 + 86_400 * number)

    def learn(*arguments: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(
            own_daemon.cli("learn", *arguments, "--repository", str(shop.root), "--json").stdout
        )
        return told["here"]

    learn("now", "--no-wait")
    run = psutil.Process(wait_until(lambda: learn("status")["pid"], "a run", step_s=0.2))
    favour(run)
    wait_until(lambda: learn("status")["step"], "its first step", limit_s=RUN_LIMIT_S, step_s=1)
    with own_daemon.http() as http:
        body = {"prefix": "def f(x):\n    return ", "suffix": "\n", "max_tokens": 4, "workspace": str(shop.root)}
        assert http.post("/v1/complete", json=body).status_code == 200
        wait_until(lambda: run.status() == psutil.STATUS_STOPPED, "a stopped process")
        assert "paused (you use completions)" in http.get("/v1/status").json()["learning"]

    def told() -> dict[str, Any] | None:
        favour(run)
        now = learn("status")
        return now if now["last"] else None

    ended = wait_until(told, "its end", limit_s=RUN_LIMIT_S, step_s=1)
    events = [each["event"] for each in json.loads(own_daemon.cli("learn", "log", "--json").stdout)["entries"]]
    assert events[:3] == ["started", "paused", "continued"] and events[-1] in ("learned", "refused")
    assert ended["in_use"] == (events[-1] == "learned")
    shown = json.loads(own_daemon.cli("adapters", "show", ended["adapter"], "--json").stdout)
    assert shown["manifest"]["rank"] == 8, "it began with the adapter of the package"
    assert [each.startswith("fill@") for each in shown["active_for"]] == [True] * ended["in_use"]
    assert not (tmp_path / "u" / "data" / "tuning" / ended["adapter"]).exists()
