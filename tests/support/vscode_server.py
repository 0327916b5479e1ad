"""A running VS Code server with the extension installed: the machine's side of an editor whose window is a web page."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from support.vscode_install import tool

START_S = 120
STOP_S = 20

SETTINGS: Mapping[str, Any] = {
    "chat.disableAIFeatures": True,
    "editor.minimap.enabled": False,
    "extensions.autoCheckUpdates": False,
    "extensions.autoUpdate": False,
    "extensions.ignoreRecommendations": True,
    "files.autoSave": "off",
    "git.openRepositoryInParentFolders": "never",
    "telemetry.telemetryLevel": "off",
    "update.mode": "none",
    "window.restoreWindows": "none",
    "workbench.startupEditor": "none",
    "workbench.tips.enabled": False,
}
"""What keeps the editor from talking to itself; everything else stays as its users have it."""


class VsCodeServer:
    """One server process; windows come and go."""

    def __init__(self, process: subprocess.Popen[bytes], data: Path, log: Path) -> None:
        self._process = process
        self.data = data
        self.log = log
        self.address = self._address()

    def url(self, place: Path, file: Path | None = None) -> str:
        """Address of a window that shows a folder, or a workspace of several by its file, and a file of it."""
        kind = "workspace" if place.suffix == ".code-workspace" else "folder"
        address = f"http://{self.address}/?{kind}={quote(str(place))}"
        if file is None:
            return address
        payload = [["openFile", f"vscode-remote://{self.address}{file}"]]
        return f"{address}&payload={quote(json.dumps(payload))}"

    def change(self, settings: Mapping[str, Any]) -> None:
        """Change settings of the machine; open windows follow."""
        file = self.data / "data/Machine/settings.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))

    def logs(self) -> str:
        """What the extension hosts and the extension have logged so far."""
        files = sorted((self.data / "data/logs").rglob("*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')}" for file in files)

    def stop(self) -> None:
        """End the server with all it started, except daemons, which are meant to stay."""
        end_group(self._process)

    def _address(self) -> str:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if found := re.search(r"Extension host agent listening on (\d+)", self.log.read_text(errors="replace")):
                return f"127.0.0.1:{found[1]}"
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"the VS Code server does not start:\n{self.log.read_text(errors='replace')}")


def install(
    command: Sequence[str],
    extensions: Sequence[Path],
    machine: Path,
    settings: Mapping[str, Any],
    environment: Mapping[str, str],
) -> None:
    """Install extensions (.vsix files) with a server's command, and write the settings of its machine."""
    done = subprocess.run(
        [*command, *(word for each in extensions for word in ("--install-extension", str(each)))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert done.returncode == 0 and "successfully installed" in done.stdout, done.stdout + done.stderr
    machine.mkdir(parents=True, exist_ok=True)
    (machine / "settings.json").write_text(json.dumps({**SETTINGS, **settings}))


def start_group(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a server in a process group of its own; it writes into ``log``."""
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a server with all it started in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def vscode_server(
    program: Path,
    data: Path,
    extension: Path,
    environ: Mapping[str, str],
    settings: Mapping[str, Any],
    *options: str,
    beside: Sequence[Path] = (),
) -> Iterator[VsCodeServer]:
    """A server with its data in ``data``, the ``extension`` (a .vsix file) and these settings of the machine.

    ``beside``: further extensions.
    """
    environment = {**os.environ, **environ, "EXTENSIONS_GALLERY": '{"serviceUrl":""}'}
    node = [tool("node", "nodejs"), str(program / "out/server-main.js"), "--accept-server-license-terms"]
    node += ["--server-data-dir", str(data)]
    install(node, (extension, *beside), data / "data/Machine", settings, environment)
    log = data / "server.log"
    command = [*node, "--host", "127.0.0.1", "--port", "0", "--without-connection-token", "--telemetry-level", "off"]
    process = start_group([*command, *options], log, environment)
    server = VsCodeServer(process, data, log)
    try:
        yield server
    finally:
        server.stop()
