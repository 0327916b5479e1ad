"""One daemon with the real model for all editors, and a home in which they find nothing of the person who tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support.installation import installation
from support.running_daemon import run_cli


@pytest.fixture(scope="session")
def environ(
    model_file: Path, models_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, str]]:
    """The environment of someone who uses peft-daemon: its command is in the path, its model is loaded."""
    with installation(models_dir) as variables:
        run_cli("start", environment=variables)
        home = tmp_path_factory.mktemp("home")
        folders = {f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        yield {**variables, **folders, "HOME": str(home), "PATH": path}
