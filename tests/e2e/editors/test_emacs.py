"""A real Emacs with eglot: what is its own besides what every editor does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support.editor_drivers import EmacsDriver

pytestmark = pytest.mark.model

SUM = """\
def total(numbers):
    result = 0
    for number in numbers:
        result += number
    return result


"""


def test_a_begun_word_is_completed_to_several_lines(environ: Mapping[str, str], tmp_path: Path) -> None:
    file = tmp_path / "own/demo.py"  # eglot shows the folder's name, and the state has to have room beside it
    file.parent.mkdir()
    begun = f"{SUM}def product(numbers):\n    result = 1\n    fo"
    file.write_text(begun)
    emacs = EmacsDriver(environ, file)
    try:
        emacs.accept("", r"result \*= number")
        emacs.terminal.keys("Enter", "BSpace")  # Emacs indents the line as the one above, and less at the second key
        emacs.terminal.type("return result")
        emacs.save()
    finally:
        emacs.close()
    names: dict[str, Any] = {}
    exec(compile(file.read_text(), "written by Emacs", "exec"), names)
    assert names["product"]([2, 3, 4]) == 24
    assert file.read_text().startswith(f"{begun}r number in numbers:\n")
