"""Ghost text in a real VS Code: what is shown is what is accepted, whatever happens while one types."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from support.notebooks import sources, write_notebook
from support.running_daemon import found_daemon, run_cli
from support.vscode_window import Window

Show = Callable[[str, str], Path]

SHAPE = '''class Rectangle:
    def __init__(self, width, height):
        self.width = width
        self.height = height

    def area(self):
        """Width times height."""
        '''
GREETING = '''def greet(first_name, last_name):
    """Say hello to somebody, by both names."""
    return "Hello, " + first_name + " " + '''


def area_shown(text: str) -> bool:
    return "width" in text and "height" in text


def test_tab_leaves_on_the_disk_what_the_ghost_text_showed(window: Window, shown: Show) -> None:
    file = shown("area.py", SHAPE)
    window.type("return self.")
    ghost = window.wait_ghost(area_shown)
    window.keys("Tab")
    window.until(window.ghost, lambda text: text != ghost, "end of the suggestion")
    window.save()
    assert file.read_text() == f"{SHAPE}return self.{ghost}"


def test_a_word_is_taken_and_the_rest_stays(window: Window, shown: Show) -> None:
    file = shown("words.py", SHAPE)
    window.type("return self.")
    ghost = window.wait_ghost(area_shown)
    window.keys("Control+ArrowRight")
    rest = window.wait_ghost(lambda text: text not in ("", ghost))
    taken = ghost.removesuffix(rest)
    assert taken and ghost == taken + rest
    window.keys("Escape")
    window.until(window.ghost, lambda text: not text, "end of the suggestion")
    window.save()
    assert file.read_text() == f"{SHAPE}return self.{taken}"


def test_a_bracket_the_editor_closed_is_replaced_and_not_doubled(window: Window, shown: Show) -> None:
    text = "import json\n\n\ndef load(path):\n    with open(path) as file:\n        return json."
    file = shown("brackets.py", text)
    window.type("load(")
    ghost = window.wait_ghost()
    window.keys("Tab")
    window.until(window.ghost, lambda text: text != ghost, "end of the suggestion")
    window.save()
    assert file.read_text() == f"{text}load(file)"


def test_inside_a_word_nothing_is_asked(window: Window, shown: Show, environ: Mapping[str, str]) -> None:
    daemon = found_daemon(environ)
    shown("inside.py", f"{SHAPE}return self.width * \n")
    window.wait_status("idle")
    window.go_to(8, 22)  # wid|th
    before = sum(daemon.metric("peft_daemon_requests_total").values())
    window.type("abcdef", delay_ms=300)
    assert window.ghost() == ""
    window.go_to(8, 37)
    window.type("s")
    window.wait_ghost()
    assert sum(daemon.metric("peft_daemon_requests_total").values()) - before <= 2


def test_in_a_comment_nothing_is_suggested_and_in_the_code_below_it_is(
    window: Window, shown: Show, environ: Mapping[str, str]
) -> None:
    shown("comment.py", SHAPE)
    window.type("# The size of what lies within all the ", delay_ms=60)

    def last_silence() -> str:
        told = json.loads(run_cli("why", "--json", "--file", "comment.py", environment=dict(environ)).stdout)
        return str(told["silent"]["decision"]["decider"]) if told["silent"] else ""

    window.until(last_silence, lambda decider: decider == "in_comment", "silence in a comment")
    assert window.ghost() == ""
    window.type("sides\nreturn self.")
    window.wait_ghost(area_shown)


def test_fast_typing_leaves_no_request_behind_and_shows_the_last(
    window: Window, shown: Show, environ: Mapping[str, str]
) -> None:
    daemon = found_daemon(environ)
    file = shown("fast.py", GREETING)
    before = daemon.metric("peft_daemon_requests_total")
    window.type("last_name\n\n\ndef farewell(first_name, last_name):\n", delay_ms=60)
    window.type("return ", delay_ms=60)
    ghost = window.wait_ghost()
    window.wait_status("idle")
    outcomes: dict[str, float] = {}
    for labels, value in daemon.metric("peft_daemon_requests_total").items():
        outcome = labels.split('outcome="')[1].split('"')[0]
        outcomes[outcome] = outcomes.get(outcome, 0) + value - before.get(labels, 0)
    dropped = outcomes.get("superseded", 0) + outcomes.get("cancelled", 0)
    assert dropped >= 3, outcomes

    def at_work() -> float:
        return daemon.metric("peft_daemon_active_requests")[""] + daemon.metric("peft_daemon_queued_requests")[""]

    # What follows the suggestion is prepared while that one is on the screen; then nothing is left.
    window.until(at_work, lambda requests: requests == 0, "rest of the daemon")
    window.keys("Tab")
    window.until(window.ghost, lambda text: text != ghost, "end of the suggestion")
    window.save()
    assert file.read_text().startswith(GREETING) and file.read_text().endswith(f"return {ghost}")


def test_a_killed_daemon_comes_back_without_a_word(window: Window, shown: Show, environ: Mapping[str, str]) -> None:
    shown("killed.py", SHAPE)
    killed = found_daemon(environ).pid
    window.type("return ")
    os.kill(killed, signal.SIGKILL)
    window.type("self.", delay_ms=100)

    def successor() -> int:
        try:
            return found_daemon(environ).pid
        except FileNotFoundError:  # between two daemons
            return killed

    window.until(successor, lambda pid: pid != killed, "new daemon", timeout_ms=120_000)
    window.wait_status("idle", timeout_ms=120_000)
    window.keys("Backspace")
    window.type(".")
    assert area_shown(window.wait_ghost(area_shown))
    assert window.notifications() == []


def test_a_cell_of_a_notebook_knows_a_name_of_the_cell_before(window: Window, folder: Path) -> None:
    file = folder / "revenue.ipynb"
    first = "def fetch_quarterly_revenue(region, quarter):\n    return DATABASE[region][quarter]"
    write_notebook(file, ("code", first), ("markdown", "## Europe"), ("code", ""))
    window.open_notebook(file)
    window.focus_cell(2)
    window.type("europe = fetch_q")
    ghost = window.wait_ghost(lambda text: text.startswith("uarterly_revenue"))
    window.keys("Tab")
    window.until(window.ghost, lambda text: text != ghost, "end of the suggestion")
    window.save()
    assert sources(file) == [first, "## Europe", f"europe = fetch_q{ghost}"]


def test_code_for_a_comment_in_a_cell_of_a_notebook_is_suggested_below_it(
    window: Window, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "prices.ipynb"
    first, wish = "prices = [3, 5, 8]", "# a loop that prints each price\n"
    write_notebook(file, ("code", first), ("code", ""))
    window.open_notebook(file)
    window.focus_cell(2)
    window.type(wish)
    ghost = window.wait_ghost(lambda text: "print(price)" in text)
    window.keys("Tab")
    window.until(window.ghost, lambda text: text != ghost, "end of the suggestion")
    window.save()
    assert sources(file) == [first, f"{wish}{ghost}"]
    exec("\n".join(sources(file)), {})
    assert capsys.readouterr().out.split() == ["3", "5", "8"]


def test_the_editor_s_keys_go_through_alternatives_and_tab_takes_the_one_that_is_shown(
    window: Window, shown: Show
) -> None:
    text = "prices = [3, 5, 8]\n\nname = "
    file = shown("alternatives.py", text)

    def first_and_next() -> tuple[str, str]:
        window.keys("Escape")
        window.until(window.ghost, lambda seen: not seen, "end of the suggestion")
        window.keys("Alt+Backslash")
        first = window.wait_ghost()
        window.keys("Alt+BracketRight")
        return first, window.wait_ghost()

    # A machine that is busy may have no time for a second one.
    first, other = window.until(first_and_next, lambda seen: seen[0] != seen[1], "another alternative")
    window.keys("Alt+BracketLeft")
    assert window.wait_ghost() == first
    window.keys("Alt+BracketRight")
    assert window.wait_ghost() == other
    window.keys("Tab")
    window.until(window.ghost, lambda seen: seen != other, "end of the suggestion")
    window.save()
    assert file.read_text() == f"{text}{other}"
