"""Two real installations of different versions that use one home in turn."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.running_daemon import run_cli
from support.tiny_service import tiny_service

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
    """Start or find the daemon by a command; its pid."""
    pid: int = json.loads(run_cli("start", "--json", environment=environment).stdout)["pid"]
    return pid


def require_told(warnings: Sequence[str], older: Path) -> None:
    """Assert that the status names both installations once, with what to do."""
    (line,) = [each for each in warnings if "two installations use this home" in each]
    assert "0.0.9" in line
    assert str(older) in line
    assert "PEFT_DAEMON_HOME" in line


async def test_promise_06_two_installations_used_in_turn_keep_the_newer_one_s_daemon_and_say_so() -> None:
    async with tiny_service() as service:
        copy = older_installation(service.root / "older")
        folders = [str(service.root / "older" / name) for name in PACKAGES]
        path = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])
        older = {**service.variables, "PYTHONPATH": path}

        first = start(older)
        async with await service.ready() as client:
            second = client.info.pid
            assert second != first
            require_told((await client.status()).warnings, copy)
        for _ in range(2):
            assert start(older) == second
            async with await service.ready() as client:
                assert client.info.pid == second
        status = json.loads(run_cli("status", "--json", environment=older).stdout)
        assert status["version"] != "0.0.9"
        require_told(status["warnings"], copy)
        assert service.paths.log_file.read_text().count("two installations use this home") == 1
