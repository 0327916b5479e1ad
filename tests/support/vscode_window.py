"""A VS Code window in a headless Chromium, driven as its user drives it: keys, menus and what is to be seen.

Everything waits for what it is about; nothing sleeps for a fixed time. A wait that fails tells what the window shows.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    FrameLocator,
    Locator,
    Page,
    Playwright,
    sync_playwright,
)
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from support.vscode_install import tool

T = TypeVar("T")

WAIT_MS = 180_000
FAILED = Path(__file__).parents[1] / "artifacts/vscode/failed"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)

FIRST_LINE = '.view-lines [class*="ghost-text-decoration"]'
FURTHER_LINES = ".suggest-preview-text .view-line"
STATUS = '.statusbar-item[id$="peftDaemon.status"]'
RELOAD_MS = 20_000
STANDS_MS = 150  # several frames of the editor
COUNT_CLICKS = """() => {
  window.clicksOutsideText = 0;
  const count = event => { window.clicksOutsideText += event.target.closest(".view-lines") ? 0 : 1; };
  document.addEventListener("pointerdown", count, true);
}"""
LISTEN = """() => {
  window.announced = [];
  const note = () => {
    for (const each of document.querySelectorAll(".monaco-aria-container > *")) {
      if (each.textContent && window.announced.at(-1) !== each.textContent) window.announced.push(each.textContent);
    }
  };
  for (const each of document.querySelectorAll(".monaco-aria-container")) {
    new MutationObserver(note).observe(each, { childList: true, characterData: true, subtree: true });
  }
}"""
NOTIFICATION = ".notifications-toasts .notification-list-item"
DIALOG = ".monaco-dialog-box"


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; its windows share nothing with those of another."""
    with sync_playwright() as playwright:
        browser = _launched(playwright)
        try:
            yield browser
        finally:
            browser.close()


def _launched(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path=tool("chromium", "chromium"), args=list(FLAGS))


class Window:
    """One window of VS Code."""

    def __init__(
        self,
        browser: Browser,
        url: str,
        *,
        size: tuple[int, int] = (1280, 800),
        sign_in: Callable[[Page], None] | None = None,
    ) -> None:
        """``sign_in`` does on the first page what its server wants before it shows the editor."""
        self._context = browser.new_context(viewport={"width": size[0], "height": size[1]})
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.console: list[str] = []
        self.page.on("console", self._heard)
        self.page.goto(url)
        if sign_in is not None:
            sign_in(self.page)
        self.page.wait_for_selector(".monaco-workbench")
        self.page.evaluate(COUNT_CLICKS)

    def close(self) -> None:
        """Close it without saving anything."""
        self._context.close()

    def reload_until(self, wanted: Locator, tries: int = 8) -> None:
        """Load the window anew until it shows what it should have shown when it was opened."""
        for attempt in range(tries):
            if attempt:
                self.page.reload()
            with contextlib.suppress(PlaywrightTimeout):
                wanted.wait_for(state="attached", timeout=RELOAD_MS)
                return
        raise AssertionError(f"{wanted} is not there, loaded {tries} times; {self.report()}")

    def keys(self, *names: str) -> None:
        """Press keys, one after another, by Playwright's names (``Control+s``)."""
        for name in names:
            self.page.keyboard.press(name)

    def type(self, text: str, *, delay_ms: float = 0) -> None:
        """Type into what has the focus."""
        self.page.keyboard.type(text, delay=delay_ms)

    def run(self, title: str) -> None:
        """Run a command of the command palette by its title, as ``peft-daemon: Switch Adapter``."""
        self.keys("F1")
        box = self.page.locator(".quick-input-widget input")
        box.fill(f">{title}")
        row = self.page.locator(".quick-input-list .monaco-list-row", has_text=title).first
        row.wait_for()
        row.click()

    def offered(self, title: str) -> list[str]:
        """The commands of the palette that match a title; none is run."""
        self.keys("F1")
        self.page.locator(".quick-input-widget input").fill(f">{title}")
        rows = self.page.locator(".quick-input-widget .monaco-list-row")
        rows.first.wait_for()  # "No matching commands" is a row as well
        labels = [row.get_attribute("aria-label") or "" for row in rows.all()]
        self.keys("Escape")
        return [label for label in labels if title in label]

    def picks(self) -> list[str]:
        """The items of the open quick pick, as a screen reader says them."""
        rows = self.page.locator(".quick-input-widget .monaco-list-row")
        rows.first.wait_for()
        return [row.get_attribute("aria-label") or "" for row in rows.all()]

    def pick(self, text: str) -> None:
        """Choose the item of the open quick pick that holds a text."""
        self.page.locator(".quick-input-widget .monaco-list-row", has_text=text).first.click()

    def go_to(self, line: int, column: int = 1) -> None:
        """Put the cursor somewhere; both count from 1."""
        self.keys("Control+g")
        self.page.locator(".quick-input-widget input").fill(f":{line}:{column}")
        self.keys("Enter")

    def open(self, file: Path) -> None:
        """Open a file, by its whole path: the search for names needs a program that the server comes without."""
        self.keys("Control+p")
        self.page.locator(".quick-input-widget input").fill(str(file))
        self.page.locator(".quick-input-widget .monaco-list-row", has_text=file.name).first.click()
        self.editor(file.name).wait_for()

    def open_notebook(self, file: Path) -> None:
        """Open a notebook, by its whole path."""
        self.keys("Control+p")
        self.page.locator(".quick-input-widget input").fill(str(file))
        self.page.locator(".quick-input-widget .monaco-list-row", has_text=file.name).first.click()
        self.page.locator(".tab.active", has_text=file.name).wait_for()
        self._cells().locator(".view-lines").first.wait_for()

    def focus_cell(self, number: int) -> None:
        """Put the keyboard into a code cell of the open notebook, at its end; they count from 1."""
        self._cells().nth(number - 1).locator(".view-lines").first.click()
        self.keys("Control+End")

    def _cells(self) -> Locator:
        """The code cells of the notebook in front; those of others stay in the page, inert."""
        return self.page.locator(".notebook-editor .code-cell-row:not([inert] *)")

    def editor(self, name: str) -> Locator:
        """The text editor of a file."""
        return self.page.locator(f'.editor-instance .monaco-editor[data-uri$="/{name}"]').first

    def focus(self, name: str) -> None:
        """Put the keyboard into the editor of an open file."""
        self.editor(name).locator(".view-lines").first.click()

    def ghost(self) -> str:
        """The suggestion to be seen, its lines joined by newlines; empty: none."""
        # In one go: the editor may draw anew between two questions.
        first, further = self.page.evaluate(
            "selectors => selectors.map(each => [...document.querySelectorAll(each)].map(found => found.textContent))",
            [FIRST_LINE, FURTHER_LINES],
        )
        return "\n".join(["".join(first), *further]).replace("\u00a0", " ")  # an element for each colour

    def wait_ghost(self, wanted: Callable[[str], bool] = bool, timeout_ms: float = WAIT_MS) -> str:
        """Wait for a suggestion that is wanted and stands still; returns it."""

        def standing() -> str | None:
            # The editor draws the first line and the further ones at different times.
            ghost = self.ghost()
            self.page.wait_for_timeout(STANDS_MS)
            return ghost if self.ghost() == ghost else None

        found = self.until(standing, lambda ghost: ghost is not None and wanted(ghost), "a suggestion", timeout_ms)
        assert found is not None
        return found

    def status_item(self) -> Locator:
        """The status bar's item."""
        return self.page.locator(STATUS)

    def status(self) -> str:
        """What a screen reader says of the status bar's item."""
        return self.status_item().get_attribute("aria-label") or ""

    def wait_status(self, pattern: str, timeout_ms: float = WAIT_MS) -> str:
        """Wait until the status bar's item says something that matches."""
        self.page.locator(STATUS).wait_for(timeout=timeout_ms)
        return self.until(self.status, lambda text: bool(re.search(pattern, text)), f"a status {pattern!r}", timeout_ms)

    def notifications(self) -> list[str]:
        """Messages to be seen now."""
        return self.page.locator(NOTIFICATION).all_text_contents()

    def listen(self) -> Callable[[], list[str]]:
        """Note what is announced to a screen reader from now on; returns what gives it."""
        self.page.evaluate(LISTEN)
        return lambda: [each.replace("\u00a0", " ") for each in self.page.evaluate("window.announced")]

    def text(self, name: str) -> str:
        """The lines to be seen of an open document."""
        return _lines(self.page.locator(f'.editor-instance .monaco-editor[data-uri*="{name}"]').first)

    def difference(self) -> Locator:
        """The editor that compares two texts."""
        return self.page.locator(".editor-instance .monaco-diff-editor")

    def proposed(self) -> str:
        """The lines to be seen on the right side of the difference."""
        return _lines(self.difference().locator(".editor.modified .monaco-editor").first)

    def wait_proposal(self, timeout_ms: float = WAIT_MS) -> str:
        """Wait for a proposal that is written to its end; returns what its right side shows."""
        self.difference().wait_for(timeout=timeout_ms)
        self.until(self.notifications, lambda told: not told, "end of the work", timeout_ms)
        return self.proposed()

    def action(self, title: str) -> None:
        """Press the button of this title above the editor."""
        self.page.locator(f'.editor-actions [aria-label^="{title}"]').first.click()

    def buttons(self) -> list[tuple[str, float]]:
        """The buttons above the editor: what each says when the mouse rests on it, and its width in pixels."""
        found = self.page.locator(".editor-actions .action-label").all()
        return [
            (each.get_attribute("aria-label") or "", (each.bounding_box() or {"width": 0})["width"]) for each in found
        ]

    def unsaved(self) -> list[str]:
        """Files with changes that are not on the disk."""
        return self.page.locator(".tab.dirty").all_text_contents()

    def dialog(self, timeout_ms: float = WAIT_MS) -> str:
        """The text of the dialog that waits for an answer."""
        box = self.page.locator(DIALOG)
        box.wait_for(timeout=timeout_ms)
        return box.inner_text()

    def answer(self, button: str) -> None:
        """Press a button of the dialog."""
        self.page.locator(f"{DIALOG} .monaco-button", has_text=button).first.click()

    def side_bar(self, title: str) -> None:
        """Show a view of the side bar by the title of its icon."""
        self.page.locator(f'.activitybar .action-label[aria-label^="{title}"]').first.click()
        self.page.locator(".sidebar .pane-body").first.wait_for()

    def rows(self) -> list[str]:
        """The rows of the side bar, as a screen reader says them."""
        rows = self.page.locator(".sidebar .monaco-list-row").all()
        return [row.get_attribute("aria-label") or "" for row in rows]

    def row(self, text: str) -> Locator:
        """The row of the side bar whose text for a screen reader begins so."""
        return self.page.locator(f'.sidebar .monaco-list-row[aria-label^="{text}"]').first

    def press(self, row: str, button: str) -> None:
        """Press a button of a row of the side bar."""
        self.row(row).hover()
        self.row(row).locator(f'.action-label[aria-label^="{button}"]').click()

    def press_message(self, text: str, button: str) -> None:
        """Press a button of the message that holds a text."""
        told = self.page.locator(NOTIFICATION, has_text=text).first
        told.locator(".monaco-button", has_text=button).click()

    @property
    def clicks(self) -> int:
        """How often the mouse was pressed since the window was opened, but for clicks into texts."""
        return int(self.page.evaluate("window.clicksOutsideText"))

    def webview(self, holding: str) -> FrameLocator:
        """The page that an extension shows, once it holds an element."""
        outer = self.page.frame_locator("iframe.webview.ready").last
        page = outer.frame_locator("iframe#active-frame")
        page.locator(holding).first.wait_for(state="attached")
        return page

    def save(self) -> None:
        """Save the file and wait until that is done."""
        self.keys("Control+s")
        self.page.locator(".tab.active.dirty").wait_for(state="detached")

    def until(self, ask: Callable[[], T], wanted: Callable[[T], bool], what: str, timeout_ms: float = WAIT_MS) -> T:
        """Ask again and again until the answer is wanted; returns it."""
        deadline = time.monotonic() + timeout_ms / 1000
        while True:
            answer = ask()
            if wanted(answer):
                return answer
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what} in {timeout_ms / 1000:.0f} s, last: {answer!r}; {self.report()}")
            self.page.wait_for_timeout(50)

    def picture(self, path: Path) -> Path:
        """Keep what the window shows."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)
        return path

    def report(self) -> str:
        """What there is to know when a wait fails."""
        status = self.status() if self.status_item().is_visible() else ""
        picture = self.picture(FAILED / f"{time.time_ns()}.png")
        return f"notifications: {self.notifications()}; status: {status!r}; {picture}"

    def _heard(self, message: ConsoleMessage) -> None:
        self.console.append(message.text)


def bare(text: str) -> str:
    """A text without white space: where an editor breaks long lines, it is shown with other such."""
    return "".join(text.split())


def _lines(editor: Locator) -> str:
    """What an editor shows, in the order it stands there (the page has the lines in any order)."""
    rows = editor.locator(".view-lines > .view-line").evaluate_all(
        "lines => lines.map(line => [parseFloat(line.style.top), line.textContent])"
    )
    return "\n".join(text for _, text in sorted(rows)).replace("\u00a0", " ")
