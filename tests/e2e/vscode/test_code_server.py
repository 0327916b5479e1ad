"""The extension in code-server itself: signed in to with a password, through its own proxy and extension host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from support.code_server import code_server
from support.vscode_window import Window

PASSWORD = "of these tests"
SHAPE = '''class Rectangle:
    def __init__(self, width, height):
        self.width = width
        self.height = height

    def area(self):
        """Width times height."""
        '''


def sign_in(page: Page) -> None:
    """Give the password that code-server asks for."""
    page.locator("input[type=password]").fill(PASSWORD)
    page.locator("input[type=submit]").click()


def test_behind_a_password_a_suggestion_is_shown_and_taken(
    vscode: Path,
    vsix: Path,
    environ: Mapping[str, str],
    machine_settings: Mapping[str, Any],
    browser: Browser,
    tmp_path: Path,
) -> None:
    file = tmp_path / "project/area.py"
    file.parent.mkdir()
    file.write_text(SHAPE)
    with code_server(vscode, tmp_path / "data", vsix, environ, machine_settings, PASSWORD) as server:
        window = Window(browser, server.url(file.parent), sign_in=sign_in)
        window.wait_status("idle", timeout_ms=240_000)
        window.open(file)
        window.focus(file.name)
        window.keys("Control+End")
        window.type("return self.")
        ghost = window.wait_ghost(lambda text: "width" in text and "height" in text)
        window.keys("Tab")
        window.until(window.ghost, lambda text: text != ghost, "end of the suggestion")
        window.save()
        assert file.read_text() == f"{SHAPE}return self.{ghost}"
        window.close()
