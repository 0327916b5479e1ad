"""In a container there is no network, and processes, files and home are its own: code, daemon and model live in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.editor import COMMAND, Editor, editor

pytestmark = pytest.mark.model

ROOT = Path(__file__).resolve().parents[3]
URI = "file:///workspace/demo.py"


@pytest.fixture
def container(model_file: Path, models_dir: Path) -> list[str]:
    """The command that runs another one in a container, as an editor's server does there, with the model mounted."""
    program = shutil.which("bwrap")
    if program is None:
        pytest.skip("bubblewrap is missing: install it with the system's package manager")
    alone = ["--unshare-all", "--die-with-parent", "--hostname", "container"]
    files = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", "/home"]
    # A home, and a checkout in it, may be where the container has folders of its own.
    files += [word for each in (models_dir, ROOT) for word in ("--ro-bind", str(each), str(each))]
    # On many machines /run has the sockets of the session that the editor's window belongs to.
    own = ["--tmpfs", "/run", "--dir", "/home/developer", "--clearenv", "--setenv", "HOME", "/home/developer"]
    set_up = ["--setenv", "PATH", os.defpath, "--setenv", "PEFT_DAEMON_MODELS_DIR", str(models_dir)]
    slow = ["--setenv", "PEFT_DAEMON_TIME_BUDGET_FILL_MS", "120000"]
    return [program, *alone, *files, *own, *set_up, *slow]


@pytest.fixture
async def inside(container: list[str]) -> AsyncIterator[Editor]:
    """An editor whose server runs in the container, where it starts the daemon."""
    settings = {"maxTokens": 32, "showAfterMs": 0}
    async with editor({}, settings=settings, command=[*container, *COMMAND]) as each:
        await each.ready()
        yield each


async def test_a_completion_comes_without_a_network_and_nothing_is_left_outside(
    container: list[str], inside: Editor
) -> None:
    inside.open(URI, "def add(a, b):\n    return ")
    item, *_ = await inside.inline(URI, 1, 11)
    assert "a + b" in str(item.insert_text)
    status = await inside.command("peft-daemon.status")
    assert status["daemon"]["pid"] < 1000  # counted by the container
    network = subprocess.run(
        [*container, "cat", "/proc/net/dev"], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert [line.partition(":")[0].strip() for line in network.splitlines()[2:]] == ["lo"]
    assert not Path("/home/developer").exists()
