"""Tuning from the editor: the plan, the question, the progress and the verdict, with the real model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from support.own_repository import OwnRepository, module
from support.running_daemon import run_cli
from support.vscode_server import VsCodeServer
from support.vscode_window import Window

pytestmark = [pytest.mark.torch, pytest.mark.long]

ARGUMENTS = [
    *("--max-steps", "1", "--limit", "8", "--validation-limit", "2"),
    *("--batch-size", "1", "--gate-holes", "1", "--prompt-tokens", "96", "--rank", "4"),
]
"""One step: what is learned is not what this is about."""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a history: its newest code is kept to judge by."""
    own = OwnRepository(tmp_path / "shop")
    for number in range(6):
        own.commit({f"shop/module_{number}.py": module(number)}, when=1_700_000_000 + 86_400 * number)
    return own.root


@pytest.fixture
def window(server: VsCodeServer, browser: Browser, repository: Path) -> Iterator[Window]:
    """A window on the repository."""
    server.change({"peft-daemon.tuneArguments": ARGUMENTS})
    window = Window(browser, server.url(repository))
    window.wait_status("idle", timeout_ms=240_000)
    yield window
    window.close()
    server.change({"peft-daemon.tuneArguments": []})


def test_a_repository_is_tuned_on_and_the_verdict_told(window: Window, environ: Mapping[str, str]) -> None:
    window.run("peft-daemon: Tune on This Repository")
    window.until(window.notifications, lambda shown: any("measuring" in each for each in shown), "progress")
    plan = window.dialog(timeout_ms=600_000)
    for text in ("Tune on shop?", "Examples: 8 to learn, in 1 steps", "Memory:", "only if it is better"):
        assert text in plan
    window.answer("10 Minutes Only")
    window.until(window.notifications, lambda shown: any("Tuning on shop" in each for each in shown), "progress")
    told = window.until(
        lambda: "\n".join(window.notifications()), lambda text: "is kept, but not in use" in text, "verdict", 600_000
    )
    assert "8 are needed" in told
    shown = json.loads(run_cli("adapters", "show", "shop", "--json", environment=environ).stdout)
    assert shown["active_for"] == [] and shown["manifest"]["rank"] == 4
