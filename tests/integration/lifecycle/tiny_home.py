"""Homes for tiny daemons."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.client import DaemonClient
from peft_daemon.lifecycle.background_process import handover_environment
from peft_daemon.lifecycle.runtime_info import DaemonInfo, find_running_daemon
from peft_daemon.lifecycle.start import ensure_running
from peft_daemon.lifecycle.stop import stop_daemon
from support.waiting import until

TINY = Path(__file__).with_name("tiny_daemon.py")
LIMIT_S = 30.0


async def exit_code(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a child; its exit code."""
    await until(lambda: process.poll() is not None, "the end of a child")
    return process.returncode


@dataclass(frozen=True)
class TinyHome:
    """Folders of one test, and ways to run the tiny daemon in them."""

    root: Path

    @property
    def paths(self) -> Paths:
        return Paths.from_environment({"PEFT_DAEMON_HOME": str(self.root / "home")})

    @property
    def spawns(self) -> Path:
        return self.root / "spawns"

    @property
    def errors(self) -> Path:
        """What spawned daemons print."""
        return self.root / "errors"

    def command(self, *options: str) -> tuple[str, ...]:
        return (sys.executable, str(TINY), "--spawns", str(self.spawns), *options)

    async def ensure(self, *options: str, timeout_s: float = LIMIT_S, **settings: object) -> DaemonInfo:
        command = self.command(*options)
        return await ensure_running(Settings(**settings), self.paths, timeout_s=timeout_s, command=command)

    async def connect(self, *options: str, **settings: object) -> DaemonClient:
        return await DaemonClient.connect(Settings(**settings), self.paths, command=self.command(*options))

    def spawn(self, *options: str, **settings: object) -> subprocess.Popen[bytes]:
        """A daemon as this process's child, whose exit code can be seen."""
        environment = handover_environment(Settings(**settings), self.paths, os.environ)
        with self.errors.open("ab") as errors:
            return subprocess.Popen(self.command(*options), env=environment, stderr=errors)

    async def ensure_pretending(self, version: str, *options: str) -> DaemonInfo:
        """A running daemon that says it is of another version, and with options of another protocol or installation."""
        self.spawn("--pretend-version", version, *options)
        return await self.serving()

    async def stop(self) -> None:
        await stop_daemon(self.paths)

    async def kill(self, info: DaemonInfo) -> None:
        """kill -9, and wait until the process is gone."""
        psutil.Process(info.pid).kill()
        await until(lambda: info.process.find() is None, "the end of a killed daemon")

    async def serving(self) -> DaemonInfo:
        info = await until(lambda: find_running_daemon(self.paths), "a daemon that serves")
        assert info is not None
        return info

    def notes(self, word: str) -> list[int]:
        """Pids of the processes that wrote ``word``."""
        lines = self.spawns.read_text().splitlines() if self.spawns.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == word]
