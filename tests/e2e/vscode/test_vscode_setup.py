"""First use: from nothing installed to a suggestion, while the user goes on typing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from support.running_daemon import run_cli
from support.vscode_server import VsCodeServer, vscode_server
from support.vscode_window import NOTIFICATION, Window

QUICK_PICK = ".quick-input-widget .monaco-list-row"
COUNTING = "def count_words(text):\n    return len("


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pd-"))  # a socket path has room for 103 bytes
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def nothing_installed(
    vscode: Path, vsix: Path, home: Path, tmp_path: Path, environ: Mapping[str, str]
) -> Iterator[VsCodeServer]:
    """A server on whose machine there is Python, but neither peft-daemon nor a model, and no index has the package."""
    folders = [part for part in os.environ["PATH"].split(os.pathsep) if not (Path(part) / "peft-daemon").exists()]
    variables = {
        **environ,
        "PEFT_DAEMON_HOME": str(home),
        "PEFT_DAEMON_MODELS_DIR": str(tmp_path / "models"),
        "PATH": os.pathsep.join(folders),
    }
    settings = {"editor.quickSuggestions": {"other": "off"}}
    with vscode_server(vscode, tmp_path / "data", vsix, variables, settings, "--disable-workspace-trust") as server:
        yield server
    run_cli("stop", environment=variables)


def test_from_nothing_to_a_suggestion(
    nothing_installed: VsCodeServer, home: Path, browser: Browser, tmp_path: Path
) -> None:
    file = tmp_path / "project/words.py"
    file.parent.mkdir()
    file.write_text(COUNTING)
    subprocess.run(["git", "init", "--quiet", str(file.parent)], check=True)
    window = Window(browser, nothing_installed.url(file.parent, file))
    window.wait_status("not set up")
    environment = nothing_installed.data / "data/User/globalStorage/peft-daemon.peft-daemon/env"
    assert not environment.exists()
    window.page.locator(NOTIFICATION, has_text="not set up yet").locator(".monaco-button", has_text="Set Up").click()
    asked = window.dialog()
    assert "into an environment of its own?" in asked and "280 MB on the disk" in asked
    window.answer("Install")
    window.until(window.notifications, lambda shown: any("installing" in each for each in shown), "progress")
    window.focus(file.name)
    window.keys("Control+End")
    window.type("t")
    assert "return len(t" in window.text(file.name)
    assert not (environment / "bin/peft-daemon").exists()
    window.until(window.notifications, lambda shown: any("measuring" in each for each in shown), "measurement", 600_000)
    window.page.locator(QUICK_PICK, has_text="recommended").wait_for(timeout=60_000)
    (smallest,) = [each for each in window.picks() if "qwen2.5-coder-0.5b-instruct" in each]
    assert "491 MB to fetch" in smallest and "Apache-2.0" in smallest
    assert 1 < len(window.picks()) <= 3 and "recommended" in window.picks()[0]
    window.pick("qwen2.5-coder-0.5b-instruct")
    window.until(window.notifications, lambda shown: any("fetching" in each for each in shown), "progress")
    window.wait_status("idle", timeout_ms=600_000)
    (package,) = environment.glob("lib/python3.*/site-packages/peft_daemon-*.dist-info")
    origin = json.loads((package / "direct_url.json").read_text())["url"]
    assert origin.startswith(f"file://{nothing_installed.data}") and "/out/wheel/peft_daemon-" in origin
    assert not (package.parent / "torch").exists()
    assert (home / "config/config.toml").read_text() == 'model = "qwen2.5-coder-0.5b-instruct"\n'
    window.focus(file.name)
    window.keys("Control+End")
    window.type("e")
    assert "xt" in window.wait_ghost(lambda text: "xt" in text)
    assert window.clicks == 3, "Set Up, Install, the model"
    assert window.page.locator(".terminal-wrapper").count() == 0

    window.run("peft-daemon: Tune on This Repository")
    assert "Tuning needs PyTorch" in window.dialog()
    window.keys("Escape")

    nothing_installed.change({"peft-daemon.command": ["/nowhere/peft-daemon"]})
    window.wait_status("There is no program '/nowhere/peft-daemon'")
    told = window.page.locator(NOTIFICATION, has_text="There is no program")
    told.locator(".monaco-button", has_text="Open the Setting").wait_for()
    assert not [each for each in window.notifications() if "ENOENT" in each or "    at " in each]
    window.status_item().click()
    assert "Open the Setting" in window.picks()[0]
    window.keys("Escape")
    window.close()
