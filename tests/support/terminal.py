"""A program in a real terminal (tmux): keys are typed, the screen is read as a person would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.waiting import wait_until

COLUMNS, LINES = 110, 40


class Terminal:
    """One program on a screen of its own."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        # Not tmp_path: a socket path has room for 103 bytes.
        self._private = Path(tempfile.mkdtemp(prefix="tm-"))
        self._tmux = ["tmux", "-S", str(self._private / "socket"), "-f", os.devnull]
        self._environ = {**os.environ, "LC_ALL": "C.UTF-8", "EDITOR": "", "VISUAL": "", **environ}
        size = ("-x", str(COLUMNS), "-y", str(LINES))
        # What the program said when it ended at once stays on the screen.
        keep = (";", "set-option", "-s", "escape-time", "0", ";", "set-option", "-w", "remain-on-exit", "on")
        self._run("new-session", "-d", *size, "-c", str(folder), *command, *keep)

    def keys(self, *names: str) -> None:
        """Press keys, by their tmux names: ``C-x``, ``Enter``, ``Escape``."""
        self._run("send-keys", *names)

    def type(self, text: str) -> None:
        """Type characters."""
        self._run("send-keys", "-l", text)

    def screen(self) -> str:
        """What is shown now."""
        return self._run("capture-pane", "-p")

    def wait(self, pattern: str, seconds: float = 120) -> str:
        """Wait until the screen shows what a regular expression describes; returns the screen."""
        return wait_until(
            lambda: screen if re.search(pattern, screen := self.screen()) else "",
            lambda: f"{pattern!r} on the screen, which is\n{self.screen()}",
            limit_s=seconds,
            step_s=0.05,
        )

    def close(self) -> None:
        """End the program."""
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True, timeout=60)
        shutil.rmtree(self._private, ignore_errors=True)

    def _run(self, *command: str) -> str:
        return subprocess.run(
            [*self._tmux, *command], check=True, env=self._environ, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=60,
        ).stdout  # fmt: skip
