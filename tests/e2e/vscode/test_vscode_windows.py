"""Several windows of VS Code, one daemon; and what a folder that nobody trusts may have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil
from playwright.sync_api import Browser

from support.running_daemon import found_daemon
from support.vscode_server import VsCodeServer
from support.vscode_window import Window

COUNTING = "def count_words(text):\n    return len("


def processes(home: str, module: str) -> list[int]:
    """Processes of this home that run a module of ours."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("PEFT_DAEMON_HOME") == home
            if ours and module in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue  # it ended, or is another user's
    return found


def test_two_windows_share_one_daemon(
    server: VsCodeServer, browser: Browser, environ: Mapping[str, str], tmp_path: Path
) -> None:
    windows = []
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
    home = environ["PEFT_DAEMON_HOME"]
    assert len(processes(home, "lsp")) == 2
    assert processes(home, "peft_daemon.background") == [found_daemon(environ).pid]
    for window, _ in windows:
        window.close()
