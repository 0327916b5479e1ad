"""A real Helix with the shipped configuration, in a terminal: what it writes is read from disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.fetched_editors import EXAMPLES, fetched, need_tmux
from support.terminal import Terminal

pytestmark = pytest.mark.model

Edit = Callable[[str], tuple[Terminal, Path]]


@pytest.fixture
def edit(environ: Mapping[str, str], tmp_path: Path) -> Iterator[Edit]:
    """Opens a file with this text in a Helix whose language server says that the model is loaded."""
    need_tmux()
    helix = fetched("hx")
    config = tmp_path / "config"
    (config / "helix").mkdir(parents=True)
    (config / "helix/languages.toml").write_text((EXAMPLES / "helix.toml").read_text())
    opened: list[Terminal] = []

    def open_file(text: str) -> tuple[Terminal, Path]:
        file, log = tmp_path / "demo.py", tmp_path / "log"
        file.write_text(text)
        command = [str(helix), "-v", "--log", str(log), str(file)]
        terminal = Terminal(command, {**environ, "XDG_CONFIG_HOME": str(config)}, tmp_path)
        opened.append(terminal)
        terminal.wait("NOR")
        deadline = time.monotonic() + 120
        while '"state": "idle"' not in (said := log.read_text(errors="replace") if log.exists() else ""):
            assert time.monotonic() < deadline, f"the server is not ready; Helix's log ends with\n{said[-2000:]}"
            time.sleep(0.1)
        return terminal, file

    yield open_file
    for terminal in opened:
        terminal.close()


def written(terminal: Terminal, file: Path, name: str) -> Any:
    """What the file defines under a name after it was saved."""
    terminal.keys("Escape")
    terminal.wait("NOR")  # else the terminal takes Escape and the next key for one
    terminal.type(":write!")
    terminal.keys("Enter")
    terminal.wait("written")
    names: dict[str, Any] = {}
    exec(compile(file.read_text(), "written by Helix", "exec"), names)
    return names[name]


def test_the_suggestion_is_in_the_list_while_typing_and_enter_writes_it_into_the_file(edit: Edit) -> None:
    helix, file = edit("def add(a, b):\n    retur\n")
    helix.type("jA")
    helix.type("n ")
    helix.wait(r"a \+ b +text")
    helix.keys("Tab", "Enter")
    helix.wait(r"return a \+ b *\n")
    assert written(helix, file, "add")(2, 3) == 5


def test_the_code_action_on_a_comment_writes_the_code_below_it(edit: Edit) -> None:
    comment = "# a function add(a, b) that returns the sum of a and b\n"
    helix, file = edit(comment)
    helix.type(" a")
    helix.wait("Generate code from this comment")
    helix.keys("Enter")
    helix.wait(r"def add\(")
    assert written(helix, file, "add")(2, 3) == 5
    assert file.read_text().startswith(comment)
