"""A headless Neovim that is driven like one with a screen, through its remote protocol."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.waiting import wait_until

PLUGIN = Path(__file__).parents[2] / "nvim-client"
WAIT_S = 120
VISIBLE = "luaeval('require(\"peft-daemon\").visible()')"
"""What accepting would insert, or null."""


class Neovim:
    """One Neovim with the plugin, installed by copying it, and a file; ``init`` is the user's configuration in Lua."""

    def __init__(self, nvim: Path, file: Path, environ: Mapping[str, str], init: str = "") -> None:
        self._nvim = nvim
        # Not tmp_path: a socket path has room for 103 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="nv-"))
        self._socket = str(self._folder / "socket")
        own = {f"XDG_{kind}_HOME": str(self._folder / kind) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
        own["NVIM_LOG_FILE"] = str(self._folder / "nvim.log")
        self._environ = {**os.environ, **environ, **own}
        shutil.copytree(PLUGIN, self._folder / "DATA/nvim/site/pack/plugins/start/peft-daemon")
        (self._folder / "CONFIG/nvim").mkdir(parents=True)
        (self._folder / "CONFIG/nvim/init.lua").write_text(init)
        options = ["--headless", "-n", "-i", "NONE", "--listen", self._socket, str(file)]
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

    def lua(self, expression: str) -> Any:
        """The value of a Lua expression."""
        quoted = expression.replace("'", "''")
        return json.loads(self._ask(f"json_encode(luaeval('{quoted}'))"))

    def open(self, file: Path) -> None:
        """Edit another file, and wait until the server is ready for it."""
        self.keys(f"<Esc>:edit! {file}<CR>")
        self.ready()

    def ready(self) -> None:
        """Wait until the model is loaded."""
        self.wait("luaeval('require(\"peft-daemon\").statusline()') =~# 'idle'")

    def shows(self, text: str) -> None:
        """Wait until what would be accepted has this in it."""
        self.wait(f"stridx(string({VISIBLE}), '{text}') >= 0")

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
