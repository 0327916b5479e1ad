"""A running code-server: its own program, with its sign-in and its proxy, around the VS Code that the other tests use.

Its package is installed without install scripts. One module that it cannot start without, for the hashes of passwords,
is compiled here from the package's own source.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import filelock

from support.made_once import cache_folder
from support.vscode_install import tool
from support.vscode_server import end_group, install, start_group
from support.waiting import wait_until

BUILD_S = 300
LISTENING = re.compile(r"HTTP server listening on (http://\S+?)/?$", re.MULTILINE)


class CodeServer:
    """One process of code-server; windows come and go."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        wait_until(self._listens, self.log)
        found = LISTENING.search(self.log())
        assert found is not None, self.log()
        self._address = found[1]

    def url(self, folder: Path) -> str:
        """Address of a window that shows a folder."""
        return f"{self._address}/?folder={quote(str(folder))}"

    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    def _listens(self) -> bool:
        return LISTENING.search(self.log()) is not None or self._process.poll() is not None


def program(vscode: Path) -> list[str]:
    """Return the command that runs the code-server whose package has this VS Code; compiles what it lacks."""
    package = vscode.parents[1]
    node = Path(tool("node", "nodejs"))
    module = package.parent / "argon2"
    folder = module / "lib/binding/napi-v3"
    with filelock.FileLock(cache_folder() / "vscode.lock", timeout=BUILD_S):
        if not (folder / "argon2.node").exists():
            _compile(module, folder, node)
    return [str(node), str(package / "out/node/entry.js")]


def _compile(module: Path, folder: Path, node: Path) -> None:
    """Compile a package's native module with the headers of the Node that runs it; nothing is fetched."""
    npm = Path(tool("npm", "npm")).resolve().parents[1]
    places = (npm / "node_modules/node-gyp/bin/node-gyp.js", Path(shutil.which("node-gyp") or "/nowhere").resolve())
    (gyp, *_) = [each for each in places if each.exists()]
    options = {
        "nodedir": node.resolve().parents[1],
        "module_name": "argon2",
        "module_path": folder,
        "napi_version": 9,
        "napi_build_version": 3,
    }
    done = subprocess.run(
        [str(node), str(gyp), "rebuild", *(f"--{name}={value}" for name, value in options.items())],
        cwd=module,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    assert done.returncode == 0, f"{module} cannot be compiled (Debian: apt install g++ libnode-dev):\n{done.stderr}"


@contextlib.contextmanager
def code_server(
    vscode: Path, data: Path, extension: Path, environ: Mapping[str, str], settings: Mapping[str, Any], password: str
) -> Iterator[CodeServer]:
    """A code-server with its data in ``data`` and the ``extension`` (a .vsix file), behind a password."""
    environment = {
        **os.environ,
        **environ,
        "EXTENSIONS_GALLERY": '{"serviceUrl":""}',
        "PASSWORD": password,
        "XDG_CONFIG_HOME": str(data / "config"),
        "XDG_DATA_HOME": str(data / "share"),
    }
    command = [*program(vscode), "--user-data-dir", str(data / "user"), "--extensions-dir", str(data / "extensions")]
    install(command, (extension,), data / "user/Machine", settings, environment)
    options = ["--auth", "password", "--bind-addr", "127.0.0.1:0", "--disable-workspace-trust"]
    options += ["--disable-telemetry", "--disable-update-check", "--disable-getting-started-override"]
    log = data / "code-server.log"
    process = start_group([*command, *options], log, environment)
    try:
        yield CodeServer(process, log)
    finally:
        end_group(process)
