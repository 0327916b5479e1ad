"""Real daemons with the real model, shared by all end-to-end tests that only ask them questions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.running_daemon import RunningDaemon, home_environment, run_cli, start_daemon


@pytest.fixture(scope="session")
def daemon(model_file: Path, models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """The shared daemon, on a unix socket."""
    home = tmp_path_factory.mktemp("d")
    environment = home_environment(home, models_dir)
    yield start_daemon(home, environment)
    run_cli("stop", environment=environment)


@pytest.fixture(scope="session")
def tcp_daemon(model_file: Path, models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A second one, on TCP with a token."""
    home = tmp_path_factory.mktemp("t")
    environment = {**home_environment(home, models_dir), "PEFT_DAEMON_LISTEN": "tcp"}
    yield start_daemon(home, environment)
    run_cli("stop", environment=environment)
