"""A command shows a stranger's control characters on a terminal, and passes them on to another program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("command", [["config"], ["adapters", "use", "\x1b]0;owned\x07"]])
def test_a_command_on_a_terminal_shows_it_and_one_in_a_pipe_passes_it_on(command: list[str], tmp_path: Path) -> None:
    import pty

    environ = {**os.environ, "PEFT_DAEMON_HOME": str(tmp_path), "PEFT_DAEMON_MODELS_DIR": "/x\x1b]0;owned\x07"}
    command = [sys.executable, "-m", "peft_daemon", *command]
    controller, terminal = pty.openpty()
    with subprocess.Popen(command, env=environ, stdin=terminal, stdout=terminal, stderr=terminal):
        os.close(terminal)
        shown = b""
        try:
            while piece := os.read(controller, 65536):
                shown += piece
        except OSError:  # Linux says so that the other side is closed
            pass
    os.close(controller)
    assert b"owned" in shown
    assert b"\x1b]" not in shown and b"\x07" not in shown
    piped = subprocess.run(command, env=environ, capture_output=True, check=False)
    assert b"\x1b]0;owned" in piped.stdout + piped.stderr
