"""The adapter chosen for a folder is the one that suggests there, from the next suggestion on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.vscode_window import Window

SETTINGS = '''import json


def read_settings(path):
    """Settings of a file; an empty dictionary if there is none."""
    with ope'''
SWITCH = "peft-daemon: Switch Adapter"


def suggested(window: Window) -> str:
    """What is suggested after the last letter is typed, once all of it is there."""
    window.type("n")
    window.wait_ghost()
    window.wait_status("idle")
    ghost = window.wait_ghost()
    window.keys("Escape")
    window.until(window.ghost, lambda text: not text, "end of the suggestion")
    window.keys("Backspace")
    return ghost


def test_another_adapter_makes_another_suggestion(window: Window, shown: Callable[[str, str], Path]) -> None:
    shown("settings.py", SETTINGS)
    tuned = suggested(window)
    assert "adapter code-fim" in window.status()

    window.run(SWITCH)
    offered = window.picks()
    assert all(any(name in pick for pick in offered) for name in ("automatic", "base", "code-fim", "conala"))
    window.pick("The model without an adapter")
    window.focus("settings.py")
    window.keys("Control+End")
    window.until(lambda: (suggested(window), window.status())[1], lambda text: "no adapter" in text, "base in use")
    base = suggested(window)
    assert base != tuned

    window.run(SWITCH)
    window.pick("code-fim")
    window.focus("settings.py")
    window.keys("Control+End")
    window.until(lambda: (suggested(window), window.status())[1], lambda text: "code-fim" in text, "adapter in use")
    assert suggested(window) == tuned
    assert window.notifications() == []
