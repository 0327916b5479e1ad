"""What a screen reader says of the extension: VS Code's own texts for it, read from the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from support.own_repository import OwnRepository, module
from support.vscode_window import Window

Show = Callable[[str, str], Path]

SHAPE = '''class Rectangle:
    def __init__(self, width, height):
        self.width = width
        self.height = height

    def area(self):
        """Width times height."""
        '''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose window is set up for a screen reader."""
    own = OwnRepository(tmp_path_factory.mktemp("project") / "shop")
    own.commit({"shop.py": module(0), ".vscode/settings.json": json.dumps({"editor.accessibilitySupport": "on"})})
    return own.root


def test_a_suggestion_is_said_when_it_appears_and_can_be_read_line_by_line(window: Window, shown: Show) -> None:
    shown("area.py", SHAPE)
    heard = window.listen()
    window.type("return self.")
    ghost = window.wait_ghost(lambda text: "width" in text and "height" in text)
    window.until(heard, lambda told: any(ghost in each for each in told), "announcement of the suggestion")
    window.keys("Alt+F2")
    view = window.page.locator(".accessible-view .monaco-editor .view-lines")
    view.wait_for()
    window.until(lambda: view.inner_text().replace("\u00a0", " "), lambda text: ghost in text, "suggestion in the view")
    window.keys("Escape")
    view.wait_for(state="hidden")


def test_the_status_item_is_a_button_that_says_state_model_and_adapter(window: Window, shown: Show) -> None:
    shown("state.py", SHAPE)
    window.type("return self.")
    window.wait_ghost()
    said = window.wait_status("^peft-daemon: idle, qwen2.5-coder-0.5b-instruct, adapter code-fim, [0-9]+ ms")
    assert "$(" not in said and "\n" not in said
    button = window.page.get_by_role("button", name=said)
    button.focus()
    window.keys("Enter")
    assert all(each.strip() for each in window.picks())
    window.keys("Escape")


def test_each_row_of_the_view_says_what_it_shows_and_each_button_what_it_does(window: Window) -> None:
    window.side_bar("peft-daemon")
    window.row("Learning: not switched on").wait_for()
    said = window.rows()
    assert len(set(said)) == len(said), "no two rows sound alike"
    shown = window.page.locator(".sidebar .monaco-list-row .monaco-icon-label-container .label-name").all_inner_texts()
    for row, text in zip(said, shown, strict=True):
        label = text.split("\n")[0].strip()
        assert label and label in row, (row, text)
    window.row("Learning").hover()
    buttons = window.page.locator(".sidebar .action-label:visible")
    assert buttons.count() >= 3
    assert all((each.get_attribute("aria-label") or "").strip() for each in buttons.all())
