"""A headless Neovim that is driven like one with a screen, through its remote protocol."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from support.waiting import wait_until

WAIT_S = 120


class Neovim:
    """One Neovim with a configuration and a file."""

    def __init__(self, nvim: Path, config: Path, file: Path, environ: Mapping[str, str]) -> None:
        self._nvim = nvim
        # Not tmp_path: a socket path has room for 103 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="nv-"))
        self._socket = str(self._folder / "socket")
        own = {f"XDG_{kind}_HOME": str(self._folder / kind) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
        self._environ = {**os.environ, **environ, **own}
        options = ["--headless", "--clean", "-n", "-u", str(config), "--listen", self._socket, str(file)]
        log = (self._folder / "output").open("wb")
        self.process = subprocess.Popen([str(nvim), *options], env=self._environ, stdin=subprocess.DEVNULL, stderr=log)
        log.close()
        self._ask("1", retries=100)

    def keys(self, typed: str) -> None:
        """Type."""
        self._remote("--remote-send", typed)

    def value(self, expression: str) -> str:
        """The value of a Vim expression."""
        return self._ask(expression)

    def wait(self, expression: str) -> None:
        """Let the editor run until a Vim expression is true."""
        # Vim's own wait() would keep it from reading the keys that were typed.
        wait_until(
            lambda: self._ask(f"({expression}) ? 1 : 0") == "1",
            lambda: f"{expression}; {self.report()}",
            limit_s=WAIT_S,
            step_s=0.05,
        )

    def report(self) -> str:
        """What there is to know when a test fails."""
        logs = [path.read_text(errors="replace")[-2000:] for path in self._folder.rglob("*.log")]
        shown = self._ask("join(getline(1, '$'), nr2char(10))")
        return "\n".join([shown, self._ask("execute('messages')"), (self._folder / "output").read_text(), *logs])

    def close(self) -> None:
        """Leave without saving."""
        if self.process.poll() is None:
            self._remote("--remote-send", "<C-\\><C-n>:qall!<CR>")
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, expression: str, retries: int = 1) -> str:
        for _ in range(retries):
            done = self._remote("--remote-expr", expression)
            if done.returncode == 0:
                return done.stdout.strip() or done.stderr.strip()
            try:
                self.process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            break
        raise AssertionError(f"Neovim does not answer {expression!r}: {done.stderr}")

    def _remote(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._nvim), "--clean", "--headless", "--server", self._socket, *command], check=False,
            env=self._environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT_S,
        )  # fmt: skip
