"""A real JupyterLab with the extension: installed once into a cache folder by pinned versions, run on a free port.

The extension is the wheel that users get. Its own dependencies are those of the tests' environment.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sysconfig
import time
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path

import filelock
import httpx

from support.made_once import cache_folder

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "tests/e2e/jupyter/requirements.txt"
INSTALL_S = 900
START_S = 180
TOKEN = "0123456789abcdef"
SETTINGS = {"providers": {"peft-daemon": {"enabled": True, "timeout": 120_000, "debouncerDelay": 0}}}
"""A shared machine may be slow: JupyterLab's own limit for a suggestion is a few seconds."""


def installed() -> Path:
    """Python of an environment with JupyterLab, made if it is not there yet; several test runs may ask at once."""
    root = cache_folder()
    folder = root / f"jupyterlab-{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]}"
    with filelock.FileLock(root / "jupyterlab.lock", timeout=INSTALL_S):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder, with_pip=True)
            _run(folder / "bin/python", "-m", "pip", "install", "--no-deps", "--requirement", REQUIREMENTS)
            (folder / "complete").touch()
    return folder / "bin/python"


def install_extension(python: Path, wheel: Path, prefix: Path) -> None:
    """Install the extension below a folder, where a user's environment would have it."""
    _run(python, "-m", "pip", "install", "--no-deps", "--no-index", "--prefix", prefix, wheel)


class JupyterServer:
    """One server process."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, folder: Path) -> None:
        self._process, self.address, self.folder = process, address, folder

    def page(self, name: str) -> str:
        """Address of a notebook's page."""
        return f"{self.address}/lab/tree/{name}?token={TOKEN}"

    def stop(self) -> None:
        """End the server with its kernels."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def jupyter_server(
    python: Path, prefix: Path, data: Path, folder: Path, environ: Mapping[str, str]
) -> Iterator[JupyterServer]:
    """A JupyterLab that shows ``folder`` and has the extension that is installed below ``prefix``."""
    settings = data / "settings/@jupyterlab/completer-extension"
    settings.mkdir(parents=True)
    (settings / "inline-completer.jupyterlab-settings").write_text(json.dumps(SETTINGS))
    (site,) = prefix.glob("lib/python*/site-packages")
    product = [str(ROOT / name) for name in ("core", "daemon", "tuning", "evaluation", "lsp", "cli")]
    environment = {
        **os.environ,
        **environ,
        "PYTHONPATH": os.pathsep.join((str(site), *product, sysconfig.get_path("purelib"))),
        "JUPYTER_PATH": str(prefix / "share/jupyter"),
        "JUPYTER_CONFIG_PATH": str(prefix / "etc/jupyter"),
        "JUPYTER_CONFIG_DIR": str(data / "config"),
        "JUPYTER_DATA_DIR": str(data / "data"),
        "JUPYTER_RUNTIME_DIR": str(data / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(data / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(data / "workspaces"),
        "IPYTHONDIR": str(data / "ipython"),
    }
    command = [str(python), "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.port=0"]
    command += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}"]
    log = data / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    server = JupyterServer(process, _address(process, data / "runtime", log), folder)
    try:
        yield server
    finally:
        server.stop()


def _address(process: subprocess.Popen[bytes], runtime: Path, log: Path) -> str:
    """Wait until the server has written where it listens, and answers there."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            with contextlib.suppress(ValueError, httpx.HTTPError):
                address = f"http://127.0.0.1:{json.loads(file.read_text())['port']}"
                httpx.get(f"{address}/api", timeout=5).raise_for_status()
                return address
        time.sleep(0.1)
    process.kill()
    raise AssertionError(f"JupyterLab does not start:\n{log.read_text(errors='replace')}")


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        [str(each) for each in command], capture_output=True, text=True, timeout=INSTALL_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stdout}\n{done.stderr}")
