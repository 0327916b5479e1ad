"""Several windows of VS Code, one daemon; and what a folder that nobody trusts may have."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from support.running_daemon import found_daemon, processes
from support.vscode_server import VsCodeServer, vscode_server
from support.vscode_window import NOTIFICATION, Window

SETTINGS = {"peft-daemon.command": [sys.executable, "-m", "peft_daemon"], "peft-daemon.maxTokens": 32}
COUNTING = "def count_words(text):\n    return len("


def test_two_windows_share_one_daemon(
    server: VsCodeServer, browser: Browser, environ: Mapping[str, str], tmp_path: Path
) -> None:
    home = Path(environ["PEFT_DAEMON_HOME"])
    windows, before = [], set(processes(home, "lsp"))
    for name in ("one", "two"):
        file = tmp_path / name / f"{name}.py"
        file.parent.mkdir()
        file.write_text(COUNTING)
        windows.append((Window(browser, server.url(file.parent, file)), file))
    for window, file in windows:
        window.wait_status("idle", timeout_ms=240_000)
        window.editor(file.name).wait_for()
        window.focus(file.name)
        window.keys("Control+End")
        window.type("te")
        assert "xt" in window.wait_ghost(lambda text: "xt" in text)
    assert len(set(processes(home, "lsp")) - before) == 2
    assert processes(home, "peft_daemon.background") == [found_daemon(environ).pid]
    for window, _ in windows:
        window.close()


@pytest.mark.long
def test_a_folder_where_suggestions_are_on_does_not_switch_them_on_for_its_neighbour(
    server: VsCodeServer, browser: Browser, environ: Mapping[str, str], tmp_path: Path
) -> None:
    for name in ("with", "without"):
        (tmp_path / name / ".vscode").mkdir(parents=True)
        (tmp_path / name / f"{name}.py").write_text(COUNTING)
    # The ruler shows that VS Code has read what the folder sets: one window in five of several folders never does.
    on = {"peft-daemon.enabled": True, "editor.rulers": [40]}
    (tmp_path / "with/.vscode/settings.json").write_text(json.dumps(on))
    workspace = tmp_path / "both.code-workspace"
    workspace.write_text(json.dumps({"folders": [{"path": "with"}, {"path": "without"}]}))
    server.change({"peft-daemon.enabled": False})
    try:
        window = Window(browser, server.url(workspace, tmp_path / "with/with.py"))
        window.reload_until(window.page.locator(".view-ruler").first)
        window.wait_status("off|idle", timeout_ms=240_000)
        window.focus("with.py")
        window.keys("Control+End")
        window.type("t")
        window.keys("Backspace")
        window.wait_status("idle", timeout_ms=240_000)
        window.type("te")
        assert "xt" in window.wait_ghost(lambda text: "xt" in text)

        window.open(tmp_path / "without/without.py")
        window.focus("without.py")
        window.keys("Control+End")
        daemon = found_daemon(environ)
        before = daemon.metric("peft_daemon_requests_total")
        window.type("text.sp", delay_ms=150)
        assert (window.ghost(), daemon.metric("peft_daemon_requests_total")) == ("", before)
        window.close()
    finally:
        server.change({"peft-daemon.enabled": True})


def copilot(file: Path) -> Path:
    """An extension that looks like GitHub Copilot from outside: its name and its setting."""
    setting = {"github.copilot.enable": {"type": "object", "default": {"*": True, "plaintext": False}}}
    manifest = {
        **{"name": "copilot", "publisher": "GitHub", "version": "1.0.0", "engines": {"vscode": "^1.91.0"}},
        "contributes": {"configuration": {"properties": setting}},
    }
    with zipfile.ZipFile(file, "w") as package:
        package.writestr("extension/package.json", json.dumps(manifest))
    return file


def test_an_untrusted_folder_gets_suggestions_but_neither_names_a_program_nor_is_tuned_on(
    vscode: Path, vsix: Path, browser: Browser, environ: Mapping[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "theirs/words.py"
    touched = tmp_path / "touched"
    (file.parent / ".vscode").mkdir(parents=True)
    file.write_text(COUNTING)
    theirs = {"peft-daemon.command": ["touch", str(touched)]}
    (file.parent / ".vscode/settings.json").write_text(json.dumps(theirs))
    beside = [copilot(tmp_path / "copilot.vsix")]
    with vscode_server(vscode, tmp_path / "data", vsix, environ, SETTINGS, beside=beside) as server:
        window = Window(browser, server.url(file.parent, file))
        assert "trust the authors" in window.dialog()
        window.answer("No, I don't trust the authors")
        window.wait_status("idle", timeout_ms=240_000)
        # Copilot is on too: told once, with a button that does what it says.
        told = window.page.locator(NOTIFICATION, has_text="GitHub Copilot is on too")
        told.locator(".monaco-button", has_text="Turn peft-daemon Off Here").click()
        window.wait_status("off")
        assert not json.loads((file.parent / ".vscode/settings.json").read_text())["peft-daemon.enabled"]
        window.run("peft-daemon: Turn Suggestions On or Off in This Folder")
        window.wait_status("idle")
        assert window.notifications() == []
        window.focus(file.name)
        window.keys("Control+End")
        window.type("te")
        assert "xt" in window.wait_ghost(lambda text: "xt" in text)
        window.status_item().click()
        assert not [pick for pick in window.picks() if "Tune" in pick]
        window.keys("Escape")
        assert window.offered("peft-daemon: Tune") == []
        assert not touched.exists()
        # The same folder, trusted: the setting counts, so what was seen above is trust's doing.
        window.run("Workspaces: Manage Workspace Trust")
        window.page.locator(".workspace-trust-editor .monaco-button", has_text="Trust").first.click()
        window.until(touched.exists, bool, "start of the folder's own program")
        window.close()
