"""Where the editors are that tests type into; without one the tests are skipped, and in CI a skip is a failure."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples/editors"
"""The configurations that users are given."""


def fetched(name: str) -> Path:
    """The command of an editor that ``tests/e2e/editors/fetch.sh`` has fetched."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    command = cache / "peft-daemon-test-editors/bin" / name
    if not command.exists():
        pytest.skip(f"{name} is missing: run `sh tests/e2e/editors/fetch.sh` (Debian)")
    return command


def need_tmux() -> None:
    """The terminal that ``support.terminal`` uses."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is missing: install it with the system's package manager")
