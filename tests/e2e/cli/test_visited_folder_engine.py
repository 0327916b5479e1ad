"""Commands that need the model run nothing of the folder they are typed in."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from peft_core.paths import Paths
from peft_core.settings import resolve
from peft_daemon.client import DaemonClient
from peft_daemon.lifecycle.runtime_info import find_running_daemon
from support.hostile_folder import hostile_folder
from support.installation import installation
from support.waiting import until

pytestmark = pytest.mark.model

COMMAND = str(Path(sys.executable).with_name("peft-daemon"))


async def wait_until_loaded(environ: Mapping[str, str], serve: subprocess.Popen[bytes]) -> None:
    """Until the daemon in the foreground has the model."""
    settings, paths = resolve(environ=environ).settings, Paths.from_environment(environ)
    await until(lambda: find_running_daemon(paths) or serve.poll() is not None, "a daemon that serves")
    assert serve.poll() is None, "it ended"
    async with await DaemonClient.connect(settings, paths, start=False) as client:
        await client.wait_ready(120)


def test_what_needs_the_model_runs_nothing_of_the_folder(model_file: Path, models_dir: Path, tmp_path: Path) -> None:
    visited = hostile_folder(tmp_path / "visited", tmp_path / "marks")
    with installation(models_dir) as home:
        environ = visited.environ({**os.environ, **home})
        serve = subprocess.Popen([COMMAND, "serve"], cwd=visited.root, env=environ, stderr=subprocess.DEVNULL)
        try:
            asyncio.run(wait_until_loaded(environ, serve))
            # The second reads the repository, and then asks what its `.venv` is.
            for arguments, says in (
                (("doctor",), "ok   engine"),
                (("evaluate", "--repo", ".", "--run-tests", "--strategy", "zero-shot"), "is not run to ask it"),
            ):
                done = subprocess.run(
                    [COMMAND, *arguments], cwd=visited.root, env=environ, check=False, capture_output=True, text=True
                )
                assert says in done.stdout + done.stderr, done
        finally:
            serve.terminate()
            serve.wait(60)
    assert visited.marks == {}
