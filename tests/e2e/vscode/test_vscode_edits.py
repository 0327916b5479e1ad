"""Edits by an instruction, documentation and tests: seen while they are written, and taken or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from support.running_daemon import found_daemon
from support.vscode_window import Window, bare

Show = Callable[[str, str], Path]

PICTURES = Path(__file__).parents[2] / "artifacts/vscode"
EDIT = "peft-daemon: Edit Selection"
TOTAL = "def total(prices):\n    x = 0\n    for price in prices:\n        x += price\n    return x\n"
MEAN = "def mean(values):\n    return sum(values) / len(values)\n"
LONG = "\n".join(f"    total_{n} = first_{n} + second_{n} * third_{n}" for n in range(7))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose window has a theme of high contrast."""
    root = tmp_path_factory.mktemp("project")
    (root / ".vscode").mkdir()
    theme = {"workbench.colorTheme": "Default High Contrast"}
    (root / ".vscode/settings.json").write_text(json.dumps(theme))
    return root


def edit(window: Window, instruction: str) -> None:
    """Ask for an edit of what is selected."""
    window.run(EDIT)
    box = window.page.locator(".quick-input-widget input")
    box.fill(instruction)
    window.keys("Enter")


def test_an_edit_is_seen_while_it_is_written_and_discarding_it_stops_the_model(
    window: Window, shown: Show, environ: Mapping[str, str]
) -> None:
    daemon = found_daemon(environ)
    text = f"def compute():\n{LONG}\n    return total_1"
    file = shown("long.py", text)
    window.keys("Control+a")
    edit(window, "Add a comment to each line")
    window.difference().wait_for(timeout=120_000)
    written = window.until(window.proposed, lambda seen: "total_1" in seen, "a beginning")
    assert "return total_1" not in written
    window.until(window.proposed, lambda seen: len(seen) > len(written), "more of it")
    window.keys("Control+Enter")
    window.until(window.notifications, lambda told: any("still being written" in each for each in told), "answer")
    assert any("writing; Discard stops it" in each for each in window.notifications())
    window.picture(PICTURES / "proposal-being-written.png")
    window.action("Discard")
    window.difference().wait_for(state="detached")
    window.until(lambda: daemon.metric("peft_daemon_active_requests")[""], lambda number: number == 0, "rest")
    window.focus(file.name)
    assert window.unsaved() == []
    assert file.read_text() == text
    window.run("Notifications: Clear All Notifications")


def test_an_accepted_edit_is_what_the_difference_showed(window: Window, shown: Show) -> None:
    long = "# A line that is longer than either half of the difference is wide, and is seen as a whole all the same.\n"
    file = shown("total.py", f"{long}import math\n\n\n{TOTAL}")
    window.go_to(5)
    window.keys("Control+Shift+End")
    edit(window, "Rename x to result")
    proposed = window.wait_proposal()
    assert bare("return result") in bare(proposed)
    assert bare(long) in bare(proposed)
    wide = window.page.evaluate(
        "() => Math.max(...[...document.querySelectorAll('.monaco-diff-editor .view-line > span')]"
        ".map(each => each.getBoundingClientRect().right))"
    )
    assert wide <= 1280, "no line goes on behind the edge"
    window.picture(PICTURES / "proposal.png")
    window.page.locator(".monaco-workbench.hc-black").wait_for()
    accept, discard, *others = window.buttons()
    assert (accept[0], discard[0]) == ("Accept Proposal (Ctrl+Enter)", "Discard Proposal (Ctrl+Backspace)")
    assert len({width for _, width in (accept, discard, *others)}) == 1, "icons, as the editor's own beside them"
    right = window.difference().bounding_box()
    assert right is not None
    assert right["x"] + right["width"] <= 1280
    window.action("Accept")
    window.difference().wait_for(state="detached")
    window.save()
    assert bare(file.read_text()) == bare(proposed)
    assert "x = 0" not in proposed
    compile(file.read_text(), str(file), "exec")


def test_the_function_at_the_cursor_is_documented_from_the_refactor_menu(window: Window, shown: Show) -> None:
    file = shown("mean.py", MEAN)
    window.go_to(2, 6)
    window.keys("Control+Shift+r")
    window.page.locator(".action-widget .monaco-list-row", has_text="Document mean").wait_for()
    window.keys("Enter")
    head, body = MEAN.splitlines()
    assert window.wait_proposal().count('"""') == 2
    window.keys("Control+Enter")
    window.difference().wait_for(state="detached")
    window.save()
    documented = file.read_text()
    assert documented.startswith(f'{head}\n    """')
    assert documented.rstrip().endswith(body)
    compile(documented, str(file), "exec")


def test_a_test_of_a_function_goes_into_the_file_of_tests_that_is_there(
    window: Window, shown: Show, folder: Path
) -> None:
    (folder / "tests").mkdir()
    tests = folder / "tests/test_average.py"
    tests.write_text("import math\n")
    shown("average.py", MEAN)
    window.go_to(1, 6)
    window.run("peft-daemon: Write a Test of This Function")
    window.difference().wait_for(timeout=120_000)
    window.until(window.proposed, lambda seen: "assert mean(" in seen, "test")
    window.until(
        lambda: window.page.locator(".notifications-toasts .monaco-progress-container.active").count(),
        lambda n: n == 0,
        "the end",
    )
    assert tests.read_text() == "import math\n"
    window.keys("Control+Enter")
    window.difference().wait_for(state="detached")
    window.editor("test_average.py").wait_for()
    window.focus("test_average.py")
    window.save()
    assert tests.read_text().startswith("import math\n\n\nfrom average import mean\n\n\ndef test_mean")
