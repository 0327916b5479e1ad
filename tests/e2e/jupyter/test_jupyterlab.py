"""Ghost text in a real JupyterLab, in Chromium: the extension as it is published, a daemon and the real model."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.jupyter_server import TOKEN, JupyterServer, install_extension, installed, jupyter_server
from support.notebooks import sources, write_notebook
from support.running_daemon import home_environment, run_cli
from support.vscode_window import chromium

ROOT = Path(__file__).parents[3]
ARTIFACTS = ROOT / "tests/artifacts/jupyter"
WAIT_MS = 180_000
FIRST = "def fetch_quarterly_revenue(region, quarter):\n    return DATABASE[region][quarter]"
pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def environ(model_file: Path, models_dir: Path) -> Iterator[Mapping[str, str]]:
    """An installation with the model, whose daemon the first request starts."""
    root = Path(tempfile.mkdtemp(prefix="pd-"))  # not tmp_path: a socket path has room for 103 bytes
    variables = {**home_environment(root, models_dir), "PEFT_DAEMON_CONTEXT_TOKENS": "512"}
    yield variables
    run_cli("stop", environment=variables)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def server(environ: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """A JupyterLab on a folder with one notebook."""
    done = subprocess.run(["make", "--no-print-directory", "jupyterlab"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    (wheel,) = (ROOT / "jupyter-client/dist").glob("*.whl")
    root, python = tmp_path_factory.mktemp("jupyter"), installed()
    install_extension(python, wheel, root / "prefix")
    (root / "project").mkdir()
    write_notebook(root / "project/revenue.ipynb", ("code", FIRST), ("markdown", "## Europe"), ("code", ""))
    with jupyter_server(python, root / "prefix", root / "data", root / "project", environ) as one:
        wait_until_loaded(one)
        yield one


def wait_until_loaded(server: JupyterServer) -> None:
    """The first request starts the daemon; what is typed before its model is loaded gets nothing."""
    deadline, answer = time.monotonic() + 300, asked(server, before="x = fetch_q")
    while not (answer.status_code == 200 and answer.json()["text"]):
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.5)
        answer = asked(server, before="x = fetch_q")


def asked(server: JupyterServer, token: str = TOKEN, **changed: Any) -> httpx.Response:
    """The answer to a request of the extension's own kind."""
    cells = [{"language": "python", "code": True, "text": text} for text in (FIRST, "")]
    body = {"path": "revenue.ipynb", "cells": cells, "index": 1, "before": "", "after": "", "automatic": False}
    headers = {"Authorization": f"token {token}"}
    return httpx.post(f"{server.address}/peft-daemon/complete", json={**body, **changed}, headers=headers, timeout=300)


def test_tab_takes_what_a_cell_suggests_from_the_cell_before(server: JupyterServer) -> None:
    file = server.folder / "revenue.ipynb"
    with chromium() as browser:
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(server.page(file.name))
        cell = page.locator(".jp-Notebook .jp-CodeCell").nth(1).locator(".cm-content")
        cell.click()
        page.keyboard.type("europe = fetch_q", delay=50)
        ghost = page.locator(".jp-GhostText")
        try:
            ghost.wait_for()
        finally:
            ARTIFACTS.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=ARTIFACTS / "ghost_text.png")
        suggested = ghost.inner_text()
        page.keyboard.press("Tab")
        ghost.wait_for(state="detached")
        page.keyboard.press("Control+s")
        page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')")
    assert suggested.startswith("uarterly_revenue")
    assert sources(file) == [FIRST, "## Europe", f"europe = fetch_q{suggested}"]


def test_a_bracket_that_the_editor_closed_is_not_doubled(server: JupyterServer) -> None:
    answer = asked(server, before="def mean(values):\n    return sum(values) / len(", after=")")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"text": "values"}


def test_only_who_may_use_the_server_is_answered(server: JupyterServer) -> None:
    assert asked(server, token="wrong").status_code == 403
    # A page of another site has the browser's cookie at most, and not the token that the server's own pages send.
    with httpx.Client(base_url=server.address) as stranger:
        stranger.get("/lab", params={"token": TOKEN}, follow_redirects=True)
        assert stranger.get("/api/contents").status_code == 200
        refused = stranger.post("/peft-daemon/complete", json={})
    assert (refused.status_code, "_xsrf" in refused.text) == (403, True)


def test_what_is_no_question_is_refused_and_a_file_with_secrets_gets_nothing(server: JupyterServer) -> None:
    assert asked(server, cells=1).status_code == 400
    assert asked(server, index=2).status_code == 400
    assert asked(server, index=-1).status_code == 400
    cell = {"language": "", "code": True, "text": ""}
    assert asked(server, path=".env", cells=[cell], index=0, before="API_KEY=").json() == {"text": ""}
