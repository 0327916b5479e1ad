"""Code from a comment: shown as a difference, then taken or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.vscode_window import Window, bare

Show = Callable[[str, str], Path]

GENERATE = "peft-daemon: Generate Code from Comment or Selection"
WISH = '"""Calendar."""\n\n# a function that tells whether a year is a leap year'


def test_an_accepted_proposal_is_the_file_that_the_difference_showed(window: Window, shown: Show) -> None:
    file = shown("accepted.py", WISH)
    window.run(GENERATE)
    proposed = window.wait_proposal()
    assert bare(proposed).startswith(bare(WISH)) and len(bare(proposed)) > len(bare(WISH))
    assert file.read_text() == WISH, "nothing is edited before it is accepted"
    window.action("Accept")
    window.difference().wait_for(state="detached")
    window.save()
    assert bare(file.read_text()) == bare(proposed)
    assert "def " in proposed
    compile(file.read_text(), str(file), "exec")
    assert window.notifications() == []


def test_a_discarded_proposal_leaves_no_trace(window: Window, shown: Show) -> None:
    file = shown("discarded.py", WISH)
    window.run(GENERATE)
    window.difference().wait_for(timeout=120_000)
    window.action("Discard")
    window.difference().wait_for(state="detached")
    window.focus(file.name)
    assert window.unsaved() == []
    assert file.read_text() == WISH
    assert window.notifications() == []


def test_a_selected_sentence_is_replaced(window: Window, shown: Show) -> None:
    file = shown("sentence.py", "xs = [3, 1, 2]\nsort the list xs in reverse order")
    window.keys("Shift+Home")
    window.run(GENERATE)
    proposed = window.wait_proposal()
    assert "sort" in proposed and "the list" not in proposed
    window.keys("Control+Enter")
    window.difference().wait_for(state="detached")
    window.save()
    assert bare(file.read_text()) == bare(proposed)
    compile(file.read_text(), str(file), "exec")
