"""First use: from nothing installed to a suggestion, while the user goes on typing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from support.running_daemon import run_cli
from support.vscode_server import VsCodeServer, vscode_server
from support.vscode_window import NOTIFICATION, Window

ROOT = Path(__file__).parents[3]
COUNTING = "def count_words(text):\n    return len("


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it would be published."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (package,) = folder.glob("*.whl")
    return package


@pytest.fixture
def nothing_installed(
    vscode: Path, vsix: Path, wheel: Path, tmp_path: Path, environ: Mapping[str, str]
) -> Iterator[VsCodeServer]:
    """A server on whose machine there is Python, but neither peft-daemon nor a model."""
    folders = [part for part in os.environ["PATH"].split(os.pathsep) if not (Path(part) / "peft-daemon").exists()]
    variables = {
        **environ,
        "PEFT_DAEMON_MODELS_DIR": str(tmp_path / "models"),
        "PATH": os.pathsep.join(folders),
        "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
    }
    settings = {"peft-daemon.package": str(wheel), "editor.quickSuggestions": {"other": "off"}}
    with vscode_server(vscode, tmp_path / "data", vsix, variables, settings, "--disable-workspace-trust") as server:
        yield server
    run_cli("stop", environment=variables)


def test_from_nothing_to_a_suggestion(nothing_installed: VsCodeServer, browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "project/words.py"
    file.parent.mkdir()
    file.write_text(COUNTING)
    window = Window(browser, nothing_installed.url(file.parent, file))
    window.wait_status("not set up")
    environment = nothing_installed.data / "data/User/globalStorage/peft-daemon.peft-daemon/env"
    assert not environment.exists()
    window.page.locator(NOTIFICATION, has_text="not set up yet").locator(".monaco-button", has_text="Set Up").click()
    assert "into an environment of its own?" in window.dialog()
    window.answer("Install")
    window.until(window.notifications, lambda shown: any("installing" in each for each in shown), "progress")
    window.focus(file.name)
    window.keys("Control+End")
    window.type("t")
    assert "return len(t" in window.text(file.name)
    assert not (environment / "bin/peft-daemon").exists()
    assert "Fetch the model" in window.dialog(timeout_ms=600_000)
    window.answer("Fetch")
    window.until(window.notifications, lambda shown: any("fetching" in each for each in shown), "progress")
    window.wait_status("idle", timeout_ms=600_000)
    assert (environment / "bin/peft-daemon").exists()
    window.focus(file.name)
    window.keys("Control+End")
    window.type("e")
    assert "xt" in window.wait_ghost(lambda text: "xt" in text)
    window.close()
