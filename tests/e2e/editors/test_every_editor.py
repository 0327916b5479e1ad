"""What every editor does with the shipped configuration: a suggestion and generated code are read from the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.editor_drivers import EDITORS, EditorDriver, opened

pytestmark = pytest.mark.model

Edit = Callable[[str], EditorDriver]


@pytest.fixture
def edit(editor: str, environ: Mapping[str, str], tmp_path: Path) -> Iterator[Edit]:
    """Opens a file with this text."""
    drivers: list[EditorDriver] = []

    def open_file(text: str) -> EditorDriver:
        file = tmp_path / "own/demo.py"  # Emacs shows the folder's name, and the state has to have room beside it
        file.parent.mkdir()
        file.write_text(text)
        drivers.append(opened(editor, environ, file))
        return drivers[-1]

    yield open_file
    for driver in drivers:
        driver.close()


def defined(file: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(file.read_text(), "written by an editor", "exec"), names)
    return names


@pytest.mark.parametrize("editor", EDITORS)
def test_a_suggestion_is_shown_while_typing_and_accepted_into_the_file(edit: Edit) -> None:
    text = "def add(a, b):\n    retur"
    driver = edit(text)
    driver.type_at_end_of_last_line("n ")
    driver.accept(r"a \+ b", r"return a \+ b")
    assert driver.file.read_text() == text
    driver.save()
    assert defined(driver.file)["add"](2, 3) == 5


@pytest.mark.parametrize("editor", EDITORS)
def test_code_is_generated_below_a_comment(edit: Edit) -> None:
    comment = "# a function add(a, b) that returns the sum of a and b"
    driver = edit(comment)
    driver.generate()
    driver.save()
    assert driver.file.read_text().startswith(f"{comment}\n")
    assert defined(driver.file)["add"](2, 3) == 5
