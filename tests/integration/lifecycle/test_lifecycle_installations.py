"""Two real installations of different versions that use one home in turn."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from support.running_daemon import run_cli
from support.tiny_service import TinyService, tiny_service

REPOSITORY = Path(__file__).parents[3]
PACKAGES = ("core", "daemon", "cli", "lsp")


def older_installation(folder: Path) -> Path:
    """A copy of the code that says it is of an older version; returns the folder of its core."""
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    init = folder / "core" / "peft_core" / "__init__.py"
    text = init.read_text()
    assert '__version__ = "0.1.0"' in text
    init.write_text(text.replace('__version__ = "0.1.0"', '__version__ = "0.0.9"'))
    return init.parent


def start(environment: Mapping[str, str]) -> int:
    """Start or find the daemon; its pid."""
    pid: int = json.loads(run_cli("start", "--json", environment=environment).stdout)["pid"]
    return pid


def told(service: TinyService, environment: Mapping[str, str]) -> str:
    """The warning about installations in the status; that each names both with what to do is checked."""
    status = json.loads(run_cli("status", "--json", environment=environment).stdout)
    (line,) = [each for each in status["warnings"] if "two installations use this home" in each]
    assert "0.0.9" in line
    assert "PEFT_DAEMON_HOME" in line
    return str(line)


async def test_promise_06_two_installations_used_in_turn_keep_the_newer_one_s_daemon_and_say_so() -> None:
    async with tiny_service() as service:
        newer = service.variables
        copy = older_installation(service.root / "older")
        folders = [str(service.root / "older" / name) for name in PACKAGES]
        path = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])
        older = {**service.variables, "PYTHONPATH": path}
        assert "0.0.9" in run_cli("--version", environment=older).stdout

        first = start(older)
        second = start(newer)
        assert second != first
        assert [start(older), start(newer), start(older)] == [second] * 3
        assert str(copy) in told(service, newer)
        assert str(copy) in told(service, older)
        assert service.paths.log_file.read_text().count("two installations use this home") == 1
