"""Every command the README shows works as it stands there, in its order."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.running_daemon import RunningDaemon, home_environment, run_cli
from support.tiny_adapter import TinyAdapter

pytestmark = [pytest.mark.model, pytest.mark.torch, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.split("  #")[0].strip() for line in README.splitlines() if line.startswith("    peft-daemon ")]


@pytest.fixture(scope="module")
def environment(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    # As a user has it: with the adapters of the package.
    environment = home_environment(tmp_path_factory.mktemp("r"), models_dir) | {"PEFT_DAEMON_SHIPPED_ADAPTERS": "true"}
    yield environment
    run_cli("stop", environment=environment)


def test_its_commands_run_one_after_the_other(
    environment: dict[str, str],
    tiny_adapter: TinyAdapter,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(COMMANDS) > 7
    monkeypatch.chdir(ROOT)
    for command in COMMANDS:
        folder = str(tiny_adapter.peft_dir)
        arguments = [folder if a == "path/to/peft/folder" else a for a in shlex.split(command)[1:]]
        # The one adapter imported here has no predecessor to roll back to, and the command says so.
        expected = 5 if arguments[:2] == ["adapters", "rollback"] else 0
        result = run_cli(*arguments, environment=environment, check=False)
        assert result.returncode == expected, f"{command}\n{result.stdout}\n{result.stderr}"


def test_what_it_says_make_run_prints_is_what_make_run_asks() -> None:
    asked = re.findall(r'^    \$ peft-daemon generate "([^"]+)"', README, re.M)
    demo = (ROOT / "examples/demo.sh").read_text(encoding="utf-8")
    assert re.findall(r'"([^"]+)"', demo[demo.index("for intent in") : demo.index("; do")]) == asked
    # Of what is in use at first, nothing answers sentences, and code-fim fills in.
    assert re.findall(r"^    \[qwen\S+, ([\w -]+?)(?: × 1)?;", README, re.M) == [
        "no adapter",
        "no adapter",
        "code-fim",
    ]


def test_its_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"`?make ([a-z]+)", README)) <= targets


def test_its_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_commands_of_the_api_page_reach_the_daemon(daemon: RunningDaemon) -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    first, *others = [block for block in re.findall(r"\n\n((?:    .*\n)+)", page) if "curl" in block]
    assert json.loads(printed(first, daemon))["status"] == "ok"
    socket = first.strip().splitlines()[0]
    edit, next_edit, chat, infill = [printed(f"{socket}\n{block}", daemon) for block in others]
    assert "for n in numbers" in edit
    assert json.loads(next_edit) == {"start": 3, "old": "print(size(2))\n", "new": "print(area(2))\n"}
    assert "Rome" in chat
    answer = json.loads(infill)
    assert answer["content"].startswith("a + b") and answer["timings/predicted_n"] > 0


def printed(block: str, daemon: RunningDaemon) -> str:
    """What a block of commands writes to standard output."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    answer = subprocess.run(
        ["sh", "-ec", block], env={**daemon.environment, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout
