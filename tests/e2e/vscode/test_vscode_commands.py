"""What the menu behind the status bar's item offers, done once each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from peft_evaluation.report import store
from support.evaluation_report import finished_report
from support.running_daemon import found_daemon
from support.vscode_window import Window

Show = Callable[[str, str], Path]

MEAN = "def mean(values):\n    "


@contextmanager
def nothing_asked(window: Window, environ: Mapping[str, str]) -> Iterator[None]:
    """Within it, typing asks the model for nothing."""
    daemon = found_daemon(environ)
    window.wait_status("idle|off")
    before = daemon.metric("peft_daemon_requests_total")
    yield
    assert window.ghost() == ""
    assert daemon.metric("peft_daemon_requests_total") == before


def test_the_menu_offers_what_fits_the_open_file(window: Window, shown: Show) -> None:
    shown("menu.py", MEAN)
    window.status_item().click()
    offered = "\n".join(window.picks())
    for text in ("Snooze for 10 minutes", "Turn off for python", "Switch adapter", "Tune on this", "Restart", "logs"):
        assert text in offered
    window.pick("Show logs")
    window.page.locator(".part.panel .monaco-editor").wait_for()
    window.run("View: Hide Panel")


def test_in_a_file_that_holds_secrets_nothing_is_asked_and_the_status_says_why(
    window: Window, shown: Show, environ: Mapping[str, str]
) -> None:
    shown(".env", "STRIPE_API_KEY=4242abcd\nSMTP_PASSWORD=")
    window.wait_status(r"no suggestions in \.env: files of this kind hold secrets")
    with nothing_asked(window, environ):
        window.type("hun", delay_ms=150)
    shown("beside.py", MEAN)
    window.until(window.status, lambda text: "no suggestions" not in text, "status of an ordinary file")


def test_why_in_the_menu_tells_of_the_last_suggestion_and_the_last_silence(window: Window, shown: Show) -> None:
    shown("reasons.py", "# the mean of val\n" + MEAN)
    window.type("return s")
    window.wait_ghost()
    window.keys("Escape")
    window.go_to(1, 18)
    window.type("ues", delay_ms=150)

    def told() -> str:
        window.focus("reasons.py")
        window.status_item().click()
        window.pick("Why is there a suggestion, or none?")
        return window.until(lambda: window.text("peft-daemon-why"), lambda text: "in reasons.py" in text, "page")

    text = window.until(told, lambda text: "stands in a comment" in text, "silence in the comment")
    assert re.search(r"last suggestion +\d\d:\d\d:\d\d +reasons\.py\S* +\d+ characters", text)
    assert "qwen2.5-coder-0.5b-instruct, adapter code-fim" in text


def test_snoozed_it_asks_nothing_until_it_is_woken(window: Window, shown: Show, environ: Mapping[str, str]) -> None:
    shown("snoozed.py", MEAN)
    window.status_item().click()
    window.pick("Snooze for 10 minutes")
    window.wait_status("snoozed until")
    window.focus("snoozed.py")
    window.keys("Control+End")
    with nothing_asked(window, environ):
        window.type("return su", delay_ms=150)
    window.status_item().click()
    window.pick("Wake suggestions")
    window.until(window.status, lambda text: "snoozed" not in text, "wake status")
    window.focus("snoozed.py")
    window.keys("Control+End")
    window.type("m")
    window.wait_ghost()


def test_switched_off_for_a_language_and_on_again(window: Window, shown: Show, environ: Mapping[str, str]) -> None:
    shown("language.py", MEAN)
    toggle = "peft-daemon: Turn Suggestions On or Off for This Language"
    window.run(toggle)
    window.until(lambda: menu(window), lambda text: "Turn on for python" in text, "menu that says so")
    window.focus("language.py")
    window.keys("Control+End")
    with nothing_asked(window, environ):
        window.type("return su", delay_ms=150)
    window.run(toggle)
    window.until(lambda: menu(window), lambda text: "Turn off for python" in text, "menu that says so")
    window.focus("language.py")
    window.keys("Control+End")
    window.type("m")
    window.wait_ghost()


def test_switched_off_in_a_folder_it_says_so_there(window: Window, shown: Show, folder: Path) -> None:
    shown("folder.py", MEAN)
    toggle = "peft-daemon: Turn Suggestions On or Off in This Folder"
    window.run(toggle)
    window.wait_status("off")
    settings = folder / ".vscode/settings.json"
    assert json.loads(settings.read_text()) == {"peft-daemon.enabled": False}
    window.run(toggle)
    window.wait_status("idle")
    assert json.loads(settings.read_text()) == {}
    window.focus("folder.py")
    window.keys("Control+End")
    window.type("r")
    window.wait_ghost()


def test_doctor_tells_what_it_found(window: Window) -> None:
    window.run("peft-daemon: Check the Installation")
    text = window.until(lambda: window.text("doctor"), lambda text: "Started as:" in text, "findings", 180_000)
    assert "ok   model" in text and "BAD" not in text


def test_restart_replaces_the_daemon(window: Window, shown: Show, environ: Mapping[str, str]) -> None:
    before = found_daemon(environ).pid
    shown("restart.py", MEAN)
    window.run("peft-daemon: Restart the Daemon")

    def pid() -> int:
        try:
            return found_daemon(environ).pid
        except FileNotFoundError:  # between two daemons
            return before

    window.until(pid, lambda each: each != before, "new daemon", 120_000)
    window.wait_status("idle", timeout_ms=120_000)
    window.focus("restart.py")
    window.keys("Control+End")
    window.type("return sum")
    window.wait_ghost()


def test_a_report_draws_and_filters_under_a_strict_policy(window: Window, environ: Mapping[str, str]) -> None:
    evaluation = Path(environ["PEFT_DAEMON_HOME"]) / "data/evaluations/small"
    evaluation.mkdir(parents=True)
    store.write_report(evaluation, finished_report())
    heard = len(window.console)
    window.run("peft-daemon: Open Benchmark Report")
    window.pick("small")
    report = window.webview("details.item")
    assert report.locator("svg").count() >= 4
    policy = report.locator('meta[http-equiv="Content-Security-Policy"]').first.get_attribute("content") or ""
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    body = report.locator("body").first
    whole = "each => each.ownerDocument.documentElement.scrollWidth <= each.ownerDocument.documentElement.clientWidth"
    assert body.evaluate(whole), "the page is as wide as a window of 1280 pixels leaves room for"
    paper = "each => getComputedStyle(each).backgroundColor"
    assert "vscode-light" in (body.get_attribute("class") or "") and body.evaluate(paper) == "rgb(255, 255, 255)"
    body.evaluate(
        "each => each.classList.replace('vscode-light', 'vscode-dark')"
    )  # as the editor does for such a theme
    assert body.evaluate(paper) == "rgb(20, 25, 31)", "the editor's theme decides, not the system's"
    report.locator("input[type=search], input[type=text]").first.fill("t3 x3")
    window.until(lambda: report.locator("details.item:visible").count(), lambda count: count == 1, "filtered list")
    assert not [line for line in window.console[heard:] if "Content Security Policy" in line]


def menu(window: Window) -> str:
    """What the menu offers now."""
    window.status_item().click()
    offered = "\n".join(window.picks())
    window.keys("Escape")
    return offered
