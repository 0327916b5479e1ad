"""A real Emacs with eglot and the shipped configuration, in a terminal: what it writes is read from disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.fetched_editors import EXAMPLES, fetched, need_tmux
from support.terminal import Terminal

pytestmark = pytest.mark.model

# Compiling Lisp in the background would take the processor from the model.
QUIET = "(setq native-comp-jit-compilation nil inhibit-startup-screen t suggest-key-bindings nil)"
AT_ONCE = "(add-hook 'python-base-mode-hook #'eglot-ensure)"
# Emacs gives up after 10 s, the daemon answers after 8 s at most; both are more here, as the machine may be slow.
PATIENT = "(with-eval-after-load 'jsonrpc (setq jsonrpc-default-request-timeout 120))"

SUM = """\
def total(numbers):
    result = 0
    for number in numbers:
        result += number
    return result


"""
Edit = Callable[[str], tuple[Terminal, Path]]


@pytest.fixture
def edit(environ: Mapping[str, str], tmp_path: Path) -> Iterator[Edit]:
    """Opens a file with this text in an Emacs whose mode line says that the model is loaded; point is at the end."""
    need_tmux()
    emacs = fetched("emacs")
    opened: list[Terminal] = []

    def open_file(text: str) -> tuple[Terminal, Path]:
        file = tmp_path / "own/demo.py"  # eglot shows the folder's name, and the state has to have room beside it
        file.parent.mkdir()
        file.write_text(text)
        lisp = ("--eval", QUIET, "--eval", PATIENT, "--load", str(EXAMPLES / "emacs-eglot.el"), "--eval", AT_ONCE)
        terminal = Terminal([str(emacs), "-nw", "-Q", *lisp, str(file)], environ, file.parent)
        opened.append(terminal)
        terminal.wait("peft-daemon:idle")
        terminal.keys("M->")
        return terminal, file

    yield open_file
    for terminal in opened:
        terminal.close()


def written(terminal: Terminal, file: Path, name: str) -> Any:
    """What the file defines under a name after it was saved."""
    terminal.keys("C-x", "C-s")
    terminal.wait("Wrote ")
    names: dict[str, Any] = {}
    exec(compile(file.read_text(), "written by Emacs", "exec"), names)
    return names[name]


def test_completion_at_point_writes_the_suggestion_into_the_buffer(edit: Edit) -> None:
    emacs, file = edit("def add(a, b):\n    retur")
    emacs.type("n ")
    emacs.keys("C-M-i")
    emacs.wait(r"return a \+ b")
    assert written(emacs, file, "add")(2, 3) == 5


def test_a_begun_word_is_completed_to_several_lines(edit: Edit) -> None:
    begun = f"{SUM}def product(numbers):\n    result = 1\n    fo"
    emacs, file = edit(begun)
    emacs.keys("C-M-i")
    emacs.wait(r"result \*= number")
    emacs.keys("Enter", "BSpace")  # Emacs indents the line as the one above, and less at the second key
    emacs.type("return result")
    assert written(emacs, file, "product")([2, 3, 4]) == 24
    assert file.read_text().startswith(f"{begun}r number in numbers:\n")


def test_generating_from_a_comment_writes_the_code_below_it_and_emacs_does_not_wait_for_it(edit: Edit) -> None:
    comment = "# a function add(a, b) that returns the sum of a and b"
    emacs, file = edit(comment)
    emacs.keys("M-:")
    emacs.type('(progn (peft-daemon-generate) (write-region nil nil "at-return" nil \'silent))')
    emacs.keys("Enter")
    emacs.wait(r"def add\(.*\n +return ")
    assert (file.parent / "at-return").read_text() == comment
    assert written(emacs, file, "add")(2, 3) == 5
    assert file.read_text().startswith(f"{comment}\n")
