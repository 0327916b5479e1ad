"""Suggestions that are shown at once and grow, and a model that reads ahead, in a real VS Code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from support.running_daemon import found_daemon
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
    """A folder where what the model begins with is shown at once."""
    root = tmp_path_factory.mktemp("project")
    (root / ".vscode").mkdir()
    (root / ".vscode/settings.json").write_text(json.dumps({"peft-daemon.showAfterMs": 1}))
    return root


def test_where_the_cursor_rests_the_model_reads_before_a_key_is_pressed(
    window: Window, shown: Show, environ: Mapping[str, str]
) -> None:
    daemon = found_daemon(environ)
    answered = daemon.metric("peft_daemon_requests_total")

    def evaluated() -> float:
        return daemon.metric("peft_daemon_prompt_tokens_total").get('how="evaluated"', 0.0)

    shown("read.py", SHAPE)
    before = window.until(evaluated, lambda tokens: tokens > 0, "first reading")
    # The docstring too: it is a sentence that asks for code, and may be all that is read.
    shown("other.py", SHAPE.replace("Rectangle", "Ellipse").replace("Width times height", "Area, by its half axes"))
    window.until(evaluated, lambda tokens: tokens > before, "reading where the cursor went")
    assert daemon.metric("peft_daemon_requests_total") == answered
    assert "thinking" not in window.status()


def test_ghost_text_grows_without_a_key_and_tab_takes_all_of_it(window: Window, shown: Show) -> None:
    file = shown("grows.py", SHAPE)
    window.type("return self.")
    ghost = window.wait_ghost(lambda text: "width" in text and "height" in text)
    window.keys("Tab")
    window.until(window.ghost, lambda text: text != ghost, "end of the suggestion")
    window.save()
    assert file.read_text() == f"{SHAPE}return self.{ghost}"


def test_escape_refuses_a_suggestion_that_still_grows_and_it_does_not_come_back(
    window: Window, shown: Show, environ: Mapping[str, str]
) -> None:
    daemon = found_daemon(environ)
    text = SHAPE.replace("Rectangle", "Oblong")
    file = shown("refused.py", text)
    window.type("return self.")
    window.wait_ghost()
    window.keys("Escape")
    window.until(window.ghost, lambda seen: not seen, "end of the suggestion")

    def at_work() -> float:
        return daemon.metric("peft_daemon_active_requests")[""] + daemon.metric("peft_daemon_queued_requests")[""]

    # What would have grown is written by then, and the server has told of it if it ever does.
    window.until(at_work, lambda requests: requests == 0, "rest of the daemon")
    window.page.wait_for_timeout(1000)
    assert window.ghost() == ""
    window.save()
    assert file.read_text() == f"{text}return self.", "nothing else than the suggestion is gone"
