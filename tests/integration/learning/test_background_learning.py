"""A real daemon with a tiny model learns a repository in a real child process, and gives way to whoever completes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from snapshots.used_home import UsedHome
from support.own_repository import OwnRepository, module
from support.tiny_served import tiny_gguf
from support.waiting import wait_until

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

CONTROL = (
    *("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"),
)
LIMIT_S = 240.0


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


def test_a_run_is_paused_by_a_completion_goes_on_and_ends(home: LearningHome) -> None:
    with home.serve() as daemon:
        client = home.connect()
        try:
            assert home.here()["activity"] == "off"
            told = home.learn("now", "--no-wait")
            run = psutil.Process(wait_until(lambda: home.here()["pid"], "a run", limit_s=LIMIT_S))
            assert run.nice() == 19
            complete(client, home.root / "shop")
            assert run.status() == psutil.STATUS_STOPPED, told
            here = home.here()
            assert here["activity"] == "paused" and "you use completions" in here["line"]
            wait_until(lambda: not run.is_running() or run.status() != psutil.STATUS_STOPPED, "the run, going on")
            ended = wait_until(lambda: (now := home.here())["last"] and now, "its end", limit_s=LIMIT_S)
            print(json.dumps(ended, indent=1), home.learn("log", "--all"))
            status = client.get("/v1/status").json()
            print(status["learning"])
            assert not run.is_running()
            assert not (home.home / "data" / "tuning" / ended["adapter"]).exists()
        finally:
            client.close()
            daemon.terminate()
            daemon.wait(30)
