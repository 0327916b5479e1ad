"""A real daemon in a home of its own, and the command line as its user would type it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil


def home_environment(folder: Path, models_dir: Path) -> dict[str, str]:
    """The variables that make a process use ``folder`` as its home, without the adapters of the package.

    Most tests are about the base, or about an adapter they bring.
    """
    return {
        "PEFT_DAEMON_HOME": str(folder),
        "PEFT_DAEMON_MODELS_DIR": str(models_dir),
        "PEFT_DAEMON_SHIPPED_ADAPTERS": "false",
    }


@dataclass(frozen=True)
class RunningDaemon:
    """A daemon in a home of its own."""

    home: Path
    environment: Mapping[str, str]
    address: str
    token: str
    pid: int

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``peft-daemon`` as this daemon's user."""
        return run_cli(*arguments, environment=self.environment, check=check)

    def http(self) -> httpx.Client:
        """A client of its HTTP interface."""
        if self.address.startswith("unix:"):
            transport = httpx.HTTPTransport(uds=self.address.removeprefix("unix:"))
            return httpx.Client(transport=transport, base_url="http://localhost", timeout=120)
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.address, headers=headers, timeout=120, trust_env=False)

    def metric(self, name: str) -> dict[str, float]:
        """The values of a metric by their labels, as Prometheus writes both."""
        with self.http() as http:
            text = http.get("/metrics").text
        rows = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE)
        return {labels: float(value) for labels, value in rows}


def processes(home: Path, module: str | None = None) -> list[int]:
    """Ids of the processes whose home is this folder or lies in it; with ``module``, of those that run it."""
    found = []
    for process in psutil.process_iter():
        try:
            theirs = process.environ().get("PEFT_DAEMON_HOME")
            ours = theirs is not None and Path(theirs).is_relative_to(home)
            runs = module is None or module in process.cmdline()
            if ours and runs and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue  # it ended, or is another user's
    return found


def run_cli(*arguments: str, environment: Mapping[str, str], check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line; a failure shows what it printed."""
    result = subprocess.run(  # noqa: PLW1510  (the caller says whether a failure is one)
        [sys.executable, "-m", "peft_daemon", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    if check:
        assert result.returncode == 0, f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


def start_daemon(home: Path, environment: Mapping[str, str]) -> RunningDaemon:
    """Start one and wait for its model."""
    run_cli("start", environment=environment)
    return found_daemon(environment)


def found_daemon(environment: Mapping[str, str]) -> RunningDaemon:
    """The daemon that somebody else has started in the home of this environment."""
    home = Path(environment["PEFT_DAEMON_HOME"])
    info: dict[str, Any] = json.loads((home / "run" / "daemon.json").read_text())
    return RunningDaemon(home, environment, info["address"], info["token"], info["pid"])
