"""A real daemon with a tiny model learns a repository in a real child process, and gives way to whoever completes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx
import psutil
import pytest

from snapshots.used_home import UsedHome
from support.favoured import favour
from support.own_repository import OwnRepository, module
from support.tiny_served import tiny_gguf
from support.waiting import wait_until

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

CONTROL = (
    *("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"),
)
LIMIT_S = 240.0
KILLS = int(os.environ.get("PEFT_DAEMON_KILLS", "20"))
MOST_S = 40.0
"""A daemon that learns lives no longer than this; a run takes about as long on a machine with nothing else to do."""
PASSES = 3
"""Passes over the repository's code, which a run has time for."""


@dataclass
class LearningHome(UsedHome):
    """A home whose daemon begins after a second without requests."""

    @property
    def environ(self) -> dict[str, str]:
        return {**super().environ, "PEFT_DAEMON_LEARN_IDLE_S": "1", "PEFT_DAEMON_LEARN": "ask"}

    def learn(self, *arguments: object, check: bool = True) -> Any:
        """What a command of ``learn`` prints for programs."""
        command = [sys.executable, "-m", "peft_daemon", "learn", *map(str, arguments), "--json"]
        done = subprocess.run(
            command, check=False, env=self.environ, cwd=self.root / "shop", capture_output=True, text=True
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    @contextmanager
    def daemon(self) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
        """A daemon that serves, and a client of it; it is ended afterwards."""
        process, info = self.serve(), self.home / "run" / "daemon.json"
        try:
            # A killed daemon leaves its file.
            wait_until(lambda: info.exists() and json.loads(info.read_text())["pid"] == process.pid, "a daemon")
            with closing(self.connect()) as client:
                yield process, client
        finally:
            process.terminate()
            process.wait(30)

    def cli(self, *arguments: str) -> str:
        """What a command prints."""
        command = [sys.executable, "-m", "peft_daemon", *arguments]
        return subprocess.run(command, check=True, env=self.environ, capture_output=True, text=True).stdout

    def here(self) -> dict[str, Any]:
        """The state of the repository."""
        return self.learn("status")["here"]

    def events(self) -> list[str]:
        return [each["event"] for each in self.learn("log", "--all")["entries"]]


@pytest.fixture(scope="module")
def home() -> Iterator[LearningHome]:
    root = Path(tempfile.mkdtemp(prefix="pd-"))  # a socket path has room for 103 bytes
    made = LearningHome(root, tiny_gguf(root, context=16384, control=CONTROL).path)
    made.run({"models pull": ("models", "pull", "tiny", "--from", made.model, "--json")})
    shop = OwnRepository(root / "shop")
    for number in range(24):
        shop.commit({f"shop/part{number}.py": module(number)}, when=1_700_000_000 + number)
    yield made
    shutil.rmtree(root, ignore_errors=True)


def complete(client: httpx.Client, folder: Path) -> dict[str, Any]:
    """A completion in the repository, as an editor asks for it."""
    body = {"prefix": "def f(x):\n    return ", "suffix": "\n", "max_tokens": 4, "task": "fill"}
    place = {"workspace": str(folder), "path": str(folder / "shop" / "new.py")}
    return client.post("/v1/complete", json={**body, **place}).json()


def run_of(home: LearningHome) -> psutil.Process:
    """The process of the run under way."""
    return psutil.Process(wait_until(lambda: home.here()["pid"], "a run", limit_s=LIMIT_S))


def stopped(run: psutil.Process) -> None:
    """Wait until the run is stopped: a process that gets no time of a busy machine takes the signal with its next."""
    wait_until(lambda: run.status() == psutil.STATUS_STOPPED, "a stopped process")


def ended(home: LearningHome, run: psutil.Process) -> dict[str, Any]:
    """The state after the end of a run."""

    def told() -> dict[str, Any] | None:
        favour(run)
        now = home.here()
        return now if now["last"] else None

    return wait_until(told, "the end of the run", limit_s=LIMIT_S)


def test_a_run_gives_way_to_completions_dies_with_its_daemon_is_resumed_and_comes_to_its_end(
    home: LearningHome,
) -> None:
    shop = home.root / "shop"
    with home.daemon() as (daemon, client):
        assert (home.here()["activity"], home.here()["ask"]) == ("off", False), "too little code to ask"
        home.learn("on")
        # Asked for, as a machine that runs tests is not idle.
        home.learn("now", "--no-wait")
        run = run_of(home)
        assert run.nice() == 19
        complete(client, shop)
        stopped(run)
        assert home.here()["activity"] == "paused"
        told = client.get("/v1/status").json()
        assert "paused (you use completions)" in told["learning"] and told["tuning"] == ""
        wait_until(lambda: run.status() != psutil.STATUS_STOPPED, "the run, going on")
        # The first pass over the code ends with an evaluation and a checkpoint.
        asked = {"repository": str(shop)}

        def passed_once() -> bool:
            favour(run)
            here = client.get("/v1/learning", params=asked).json()["here"]
            return bool(here["steps"]) and here["step"] > here["steps"] / PASSES

        wait_until(passed_once, "a checkpoint", limit_s=LIMIT_S)
        complete(client, shop)
        stopped(run)
        daemon.kill()
        daemon.wait()
        wait_until(lambda: not run.is_running() or run.status() == psutil.STATUS_ZOMBIE, "the end of the run")
    # Where no daemon runs, the command line reads the same files.
    assert home.here()["line"].startswith("waits")
    with home.daemon():
        home.learn("now", "--no-wait")
        run = run_of(home)
        now = ended(home, run)
        assert not run.is_running()
    events = home.events()
    assert events[:4] == ["switched", "started", "paused", "continued"]
    assert "resumed" in events, "from its checkpoint"
    assert events[-1] in ("learned", "refused") and now["learned"]
    assert not (home.home / "data" / "tuning" / now["adapter"]).exists()
    listed = json.loads(home.cli("adapters", "list", "--json"))
    (adapter,) = [each for each in listed if each["name"] == now["adapter"]]
    assert bool(adapter["active_for"]) == now["in_use"] == (events[-1] == "learned")
    assert home.here()["line"].startswith("waits: nothing new since")


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_a_daemon_that_is_killed_again_and_again_while_it_learns_loses_nothing_and_comes_to_the_end(
    home: LearningHome,
) -> None:
    draw, kills, lines = Random(20), 0, 0
    shop = OwnRepository(home.root / "shop")
    for number in range(24):
        shop.commit({f"shop/more{number}.py": module(number)}, when=1_700_001_000 + number)
    home.learn("on")
    before = home.here()["last_at"]
    ended = False
    while not ended:
        with home.daemon() as (daemon, _client):
            if home.here()["last_at"] == before:
                home.learn("now", "--no-wait")
            if kills >= KILLS:
                wait_until(lambda: has_ended(home, before), "the end of the run", limit_s=1200)  # noqa: B023
            else:
                soon = time.monotonic() + draw.uniform(0, MOST_S)
                wait_until(lambda: time.monotonic() > soon or has_ended(home, before), "a while")  # noqa: B023
                pid = home.here()["pid"]
                daemon.kill()
                daemon.wait()
                kills += 1
                wait_until(lambda pid=pid: not pid or not alive(pid), "the end of the run with its daemon")
        now, entries = home.here(), home.learn("log", "--all")["entries"]
        assert now["choice"] == "on" and len(entries) >= lines, "nothing that was noted is lost"
        lines = len(entries)
        listed = json.loads(home.cli("adapters", "list", "--json"))
        assert not [each for each in listed if each.get("damaged")]
        ended = kills >= KILLS and now["last_at"] > before
        if now["last_at"] > before and not ended:
            # It came to its end between two kills: there is more to learn.
            before = now["last_at"]
            for number in range(8):
                shop.commit({f"shop/kill{kills}_{number}.py": module(100 + kills + number)}, when=1_700_002_000 + kills)
    assert home.events()[-1] in ("learned", "refused", "removed")
    assert not list((home.home / "data" / "tuning").glob("*"))
    print(f"\n{kills} kills; {', '.join(home.events())}")


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def has_ended(home: LearningHome, before: float) -> bool:
    """Whether a run has ended since ``before``; one under way gets a share of a busy machine."""
    now = home.here()
    if now["pid"] and psutil.pid_exists(now["pid"]):
        favour(psutil.Process(now["pid"]))
    return bool(now["last_at"] > before)


@pytest.mark.long
def test_after_a_rewritten_history_it_is_learned_on_and_going_back_serves_what_served_before(
    home: LearningHome,
) -> None:
    shop = OwnRepository(home.root / "shop")
    shop.git("checkout", "--quiet", "--orphan", "other")
    for number in range(24, 30):
        shop.commit({f"shop/part{number}.py": module(number)}, when=1_700_000_100 + number)
    before = home.here()
    with home.daemon():
        home.learn("now", "--no-wait")
        run = run_of(home)

        def again() -> dict[str, Any] | None:
            favour(run)
            now = home.here()
            return now if now["last_at"] > before["last_at"] else None

        told = wait_until(again, "the end of the run", limit_s=LIMIT_S)
        assert told["last_at"] > before["last_at"] and told["learned"] != before["learned"]
        if told["in_use"]:
            assert home.learn("rollback")["here"]["last"] == "taken back: you asked for it"
            assert home.events()[-1] == "rolled back"
        assert home.learn("off")["here"]["line"] == "switched off"
    assert not list((home.home / "data" / "tuning").glob("*"))
