"""``serve``, ``start``, ``stop`` and ``status`` as a user or a script runs them."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from peft_core.paths import Paths
from peft_daemon.lifecycle.runtime_info import find_running_daemon
from peft_daemon.lifecycle.stop import stop_daemon
from support.running_daemon import home_environment
from support.waiting import until

COMMAND = (sys.executable, "-m", "peft_daemon")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=120)


def run_json(*arguments: str) -> dict[str, Any]:
    done = run(*arguments, "--json")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer | {"exit_code": done.returncode}


@pytest.fixture
def paths(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Paths]:
    """The folders the commands of a test use; nothing runs in them afterwards."""
    # Not tmp_path: a socket path has room for 103 bytes.
    with tempfile.TemporaryDirectory(prefix="pd-", ignore_cleanup_errors=True) as home:
        for name, value in home_environment(Path(home), models_dir).items():
            monkeypatch.setenv(name, value)
        paths = Paths.from_environment()
        yield paths
        asyncio.run(stop_daemon(paths, timeout_s=5))


@pytest.fixture
def no_models(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setenv("PEFT_DAEMON_MODELS_DIR", str(tmp_path / "empty"))
    return paths


def test_without_a_daemon_status_says_so_and_exits_with_6(no_models: Paths) -> None:
    assert run_json("status") == {"running": False, "exit_code": 6}
    done = run("status")
    assert (done.returncode, done.stdout) == (6, "no daemon runs; `peft-daemon start` starts it\n")


def test_without_a_daemon_stop_succeeds(no_models: Paths) -> None:
    assert run_json("stop") == {"how": "not running", "pid": None, "seconds": 0.0, "orphans": 0, "exit_code": 0}
    assert run("stop").stdout == "no daemon was running\n"


@pytest.mark.parametrize("command", ["serve", "start"])
def test_a_missing_model_is_said_with_the_command_that_fetches_it(no_models: Paths, command: str) -> None:
    done = run(command)
    assert done.returncode == 3
    assert "peft-daemon models pull qwen2.5-coder-0.5b-instruct" in done.stderr
    assert "Traceback" not in done.stderr
    assert find_running_daemon(no_models) is None


def test_start_is_tried_each_time_it_is_asked_for(no_models: Paths) -> None:
    answers = [run_json("start")["error"]["code"] for _ in range(4)]
    assert answers == ["not_found"] * 4
    assert "failed to start" not in run("start").stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--port", "70000"), "port"),
        (("--listen", "carrier-pigeon"), "listen"),
        (("--idle-exit", "-1"), "idle_exit_s"),
    ],
)
def test_bad_settings_exit_with_2_and_name_the_setting(no_models: Paths, arguments: tuple[str, ...], says: str) -> None:
    done = run("serve", *arguments)
    assert done.returncode == 2
    assert says in done.stderr


@pytest.mark.parametrize("command", ["serve", "start", "stop", "status"])
def test_help_has_an_example(command: str) -> None:
    assert f"peft-daemon {command}" in run(command, "--help").stdout.split("Example:")[1]


@pytest.mark.model
async def test_start_status_stop_with_the_real_model(paths: Paths, model_file: Path) -> None:
    started = await asyncio.to_thread(run_json, "start")
    assert started["ready"] is True
    status = await asyncio.to_thread(run_json, "status")
    assert status["running"] is True
    assert status["engine"]["state"] == "ready"
    assert (status["address"], status["pid"]) == (started["address"], started["pid"])
    again = await asyncio.to_thread(run_json, "start", "--no-wait")
    assert again["pid"] == started["pid"]
    stopped = await asyncio.to_thread(run_json, "stop")
    assert (stopped["how"], stopped["pid"]) == ("graceful", started["pid"])
    assert {path.name for path in paths.runtime.iterdir()} == {"daemon.lock", "starter.lock"}


@pytest.mark.model
async def test_the_engine_does_not_outlive_a_killed_daemon(paths: Paths, model_file: Path) -> None:
    started = await asyncio.to_thread(run_json, "start")
    daemon = psutil.Process(started["pid"])
    family = daemon.children(recursive=True)
    assert family, "the engine is a process of its own"
    daemon.kill()
    await until(
        lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in family),
        "the end of the engine",
    )


@pytest.mark.model
async def test_serve_runs_in_the_foreground_until_ctrl_c(paths: Paths, model_file: Path) -> None:
    daemon = subprocess.Popen([*COMMAND, "serve"], stderr=subprocess.DEVNULL)
    await until(lambda: find_running_daemon(paths), "a daemon that serves")
    assert (await asyncio.to_thread(run_json, "status"))["pid"] == daemon.pid
    daemon.send_signal(signal.SIGINT)
    await until(lambda: daemon.poll() is not None, "the end of the daemon")
    assert daemon.returncode == 0
    assert find_running_daemon(paths) is None
