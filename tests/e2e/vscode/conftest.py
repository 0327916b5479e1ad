"""One VS Code with the extension, one daemon and the real model; each module of tests has a window of its own."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from support.running_daemon import run_cli
from support.vscode_install import installed
from support.vscode_server import VsCodeServer, vscode_server
from support.vscode_window import Window, chromium

ROOT = Path(__file__).parents[3]
ARTIFACTS = ROOT / "tests/artifacts/vscode"

SETTINGS: Mapping[str, Any] = {
    "peft-daemon.command": [sys.executable, "-m", "peft_daemon"],
    "peft-daemon.maxTokens": 32,
    "peft-daemon.showAfterMs": 0,  # what is accepted must not grow while the test looks at it
    "editor.quickSuggestions": {"other": "off", "comments": "off", "strings": "off"},  # no list over the ghost text
    "editor.wordBasedSuggestions": "off",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starting what these tests share takes minutes where nothing is installed yet."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.model)
            item.add_marker(pytest.mark.vscode)
            item.add_marker(pytest.mark.timeout(900), append=False)


@pytest.fixture(scope="session", autouse=True)
def _terminated() -> Iterator[None]:
    """A run that is told to end stops what it has started, as one that is interrupted does."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def vsix() -> Path:
    """The extension as it is published."""
    done = subprocess.run(
        ["make", "--no-print-directory", "vsix"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (package,) = (ROOT / "vscode-client/dist").glob("*.vsix")
    return package


@pytest.fixture(scope="session")
def vscode() -> Path:
    """VS Code's server."""
    return installed()


@pytest.fixture(scope="session")
def machine_settings() -> Mapping[str, Any]:
    """The settings of a machine on which these tests type."""
    return SETTINGS


@pytest.fixture(scope="session")
def environ(model_file: Path, models_dir: Path) -> Iterator[Mapping[str, str]]:
    """An installation with the model and the adapters of the package; the first window starts its daemon."""
    root = Path(tempfile.mkdtemp(prefix="pd-"))  # not tmp_path: a socket path has room for 103 bytes
    variables = {
        "PEFT_DAEMON_HOME": str(root),
        "PEFT_DAEMON_MODELS_DIR": str(models_dir),
        "OLLAMA_MODELS": str(root / "ollama"),
        "PEFT_DAEMON_CONTEXT_TOKENS": "512",  # a prompt that fills it is read in seconds
        "PEFT_DAEMON_TIME_BUDGET_FILL_MS": "120000",  # a shared machine may be slow; these tests are not about time
    }
    yield variables
    run_cli("stop", environment=variables)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def server(
    vscode: Path, vsix: Path, environ: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VsCodeServer]:
    """A server that trusts every folder."""
    data = tmp_path_factory.mktemp("vscode") / "data"
    with vscode_server(vscode, data, vsix, environ, SETTINGS, "--disable-workspace-trust") as one:
        yield one


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A browser for the rest of the session: no test after these uses asyncio, as Playwright's own loop runs."""
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that is open in the module's window."""
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def window(server: VsCodeServer, browser: Browser, folder: Path) -> Iterator[Window]:
    """A window on the folder, whose model is loaded."""
    one = Window(browser, server.url(folder))
    one.wait_status("idle", timeout_ms=240_000)
    yield one
    one.close()


@pytest.fixture
def shown(window: Window, folder: Path) -> Callable[[str, str], Path]:
    """Writes a file into the folder and opens it in the window, with the cursor at its end."""

    def show(name: str, text: str) -> Path:
        file = folder / name
        file.write_text(text)
        window.open(file)
        window.focus(name)
        window.keys("Control+End")
        return file

    return show


def pytest_runtest_makereport(item: pytest.Function, call: pytest.CallInfo[None]) -> None:
    """Keeps what the window shows at the end of each test, and what was logged until then."""
    if call.when != "call":
        return
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    window, server = item.funcargs.get("window"), item.funcargs.get("server")
    if isinstance(window, Window):
        window.picture(ARTIFACTS / f"{item.name}.png")
    if isinstance(server, VsCodeServer):
        (ARTIFACTS / f"{item.name}.log").write_text(server.logs())
