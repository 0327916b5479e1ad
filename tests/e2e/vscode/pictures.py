"""The README's pictures, made from a real VS Code with the real daemon and model: ``make pictures``.

Nothing is drawn by hand. The animation runs as fast as the typing did, with two exceptions: a wait for the model
lasts a second at most, whatever else the machine had to do, and each suggestion stays to be read.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "tests"))

from support.own_repository import OwnRepository  # noqa: E402
from support.running_daemon import run_cli  # noqa: E402
from support.vscode_install import installed  # noqa: E402
from support.vscode_server import vscode_server  # noqa: E402
from support.vscode_window import Window, chromium  # noqa: E402

SIZE = (880, 500)
"""Narrow enough for the editor to show a difference in one column."""
COLOURS = 64
LONGEST_WAIT_S = 1.0
READING_S = 1.5
LAST_FRAME_S = 3.0
STATISTICS = '''"""Small statistics."""


def mean(values):
    """The arithmetic mean; 0 for no values."""
    if not values:
        return 0
    return sum(values) / len(values)


def middle(values):
    """Half way between the smallest value and the largest."""
    low = min(values)
    '''
CALENDAR = '"""Calendar."""\n\n# a function that tells whether a year is a leap year'
SETTINGS = {
    "peft-daemon.command": [sys.executable, "-m", "peft_daemon"],
    "peft-daemon.maxTokens": 48,
    "editor.quickSuggestions": {"other": "off", "comments": "off", "strings": "off"},
    "editor.fontSize": 15,
    "window.commandCenter": False,
    "workbench.activityBar.location": "hidden",
    "workbench.colorTheme": "Default Dark Modern",
    "workbench.layoutControl.enabled": False,
}


WALKTHROUGH = {
    "type.png": "ghost-text.png",
    "generate.png": "proposal.png",
    "choose.png": "models.png",
    "learn.png": "view.png",
}
"""Which of them the extension's walkthrough shows."""


class Film:
    """Screenshots, when they were taken, and how long each is shown at least."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._frames: list[tuple[float, bytes, float]] = []

    def shoot(self, *, least_s: float = 0.0) -> None:
        """Take a frame."""
        self._frames.append((time.monotonic(), self._window.page.screenshot(), least_s))

    def write(self, path: Path) -> None:
        """Write an animation that runs for ever."""
        lengths = [
            max(least_s, min(later - now, LONGEST_WAIT_S))
            for (now, _, least_s), (later, _, _) in pairwise(self._frames)
        ]
        pictures = [reduced(picture) for _, picture, _ in self._frames]
        pictures[0].save(
            path,
            save_all=True,
            append_images=pictures[1:],
            duration=[round(1000 * length) for length in (*lengths, LAST_FRAME_S)],
            loop=0,
            optimize=True,
        )


def reduced(picture: bytes) -> Image.Image:
    """A screenshot in few colours: an editor has few, and the file is a fifth as large."""
    return Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)


@contextmanager
def started(folder: Path) -> Iterator[Window]:
    """A window on a folder with two files, whose model is loaded."""
    home = Path(tempfile.mkdtemp(prefix="pd-"))
    models = Path.home() / ".cache/peft-daemon/models"
    environ = {
        "PEFT_DAEMON_HOME": str(home),
        "PEFT_DAEMON_MODELS_DIR": str(models),
        "PEFT_DAEMON_TIME_BUDGET_FILL_MS": "120000",
    }
    (extension,) = (ROOT / "vscode-client/dist").glob("*.vsix")
    project = folder / "statistics"
    OwnRepository(project).commit({"spread.py": STATISTICS, "calendar.py": CALENDAR})
    try:
        with (
            vscode_server(
                installed(), folder / "data", extension, environ, SETTINGS, "--disable-workspace-trust"
            ) as at,
            chromium() as browser,
        ):
            window = Window(browser, at.url(project, project / "spread.py"), size=SIZE)
            window.wait_status("idle", timeout_ms=300_000)
            window.run("View: Toggle Primary Side Bar Visibility")
            yield window
    finally:
        run_cli("stop", environment=environ)
        shutil.rmtree(home, ignore_errors=True)


def take(window: Window, path: Path) -> None:
    """Write what the window shows."""
    reduced(window.page.screenshot()).save(path, optimize=True)


def typing(window: Window, media: Path) -> None:
    """Two suggestions, each taken with Tab."""
    window.focus("spread.py")
    window.keys("Control+End")
    film = Film(window)
    film.shoot()
    for text in ("high = ", "\nreturn "):
        for letter in text:
            window.type(letter)
            film.shoot()
        window.wait_ghost()
        window.wait_status("idle")
        film.shoot(least_s=READING_S)
        if text == "\nreturn ":
            take(window, media / "ghost-text.png")
        window.keys("Tab")
        window.until(window.ghost, lambda shown: not shown, "end of the suggestion")
        film.shoot()
    window.save()
    film.shoot()
    film.write(media / "typing.gif")


def main(media: Path) -> None:
    """Write all pictures into a folder."""
    media.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.gettempdir()) / "peft-daemon-pictures"  # it is to be seen in one of them
    folder.mkdir()
    try:
        with started(folder) as window:
            typing(window, media)
            commands(window, media)
            choices(window, media)
            proposal(window, media, folder / "statistics/calendar.py")
    finally:
        shutil.rmtree(folder)
    for name, picture in WALKTHROUGH.items():
        shutil.copy(media / picture, ROOT / "vscode-client/media/walkthrough" / name)


def commands(window: Window, media: Path) -> None:
    """The menu, and the list of adapters with all that is told of them."""
    window.status_item().click()
    window.picks()
    take(window, media / "menu.png")
    window.keys("Escape")
    window.run("peft-daemon: Switch Adapter")
    window.until(lambda: "\n".join(window.picks()), lambda text: "conala" in text, "list of adapters")
    window.page.locator(".quick-input-widget .monaco-progress-container.done").wait_for(state="attached")
    take(window, media / "adapters.png")
    window.keys("Escape")


def choices(window: Window, media: Path) -> None:
    """The models with what this machine does with them, and the view of repositories and adapters."""
    window.run("peft-daemon: Choose Model and Engine")
    window.until(lambda: "\n".join(window.picks()), lambda text: "recommended" in text, "measurement", 300_000)
    window.page.locator(".quick-input-widget .monaco-progress-container.done").wait_for(state="attached")
    take(window, media / "models.png")
    window.keys("Escape")
    window.run("peft-daemon: Learn This Repository in the Background")
    window.run("View: Show peft-daemon")
    window.row("Learning: waits").wait_for()
    window.page.mouse.move(SIZE[0] - 20, SIZE[1] / 2)
    take(window, media / "view.png")
    window.run("View: Toggle Primary Side Bar Visibility")


def proposal(window: Window, media: Path, file: Path) -> None:
    """Code for a comment, as it is offered."""
    window.open(file)
    window.focus(file.name)
    window.keys("Control+End")
    window.run("peft-daemon: Generate Code from Comment or Selection")
    assert "def " in window.wait_proposal(timeout_ms=300_000)
    take(window, media / "proposal.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
