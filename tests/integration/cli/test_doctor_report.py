"""`doctor --report` writes what helps a stranger, and nothing that is nobody's business: planted things stay out."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import zipfile
from pathlib import Path

import pytest

from peft_cli.doctor_report import redactor
from peft_core.api_types import CompleteRequest
from peft_core.files import private_folder
from peft_core.privacy.values import MASK
from peft_daemon.client import DaemonClient
from peft_daemon.lifecycle.runtime_info import find_running_daemon
from support.played_daemon import Played, played_home

COMMAND = str(Path(sys.executable).with_name("peft-daemon"))
KEY = "sk" + "_live_4242abcd4242abcd"
UPSTREAM_KEY = "plain-words-as-a-key"
LOGIN = "hunter2"
USER = "ingeborg"
CODE = "unmistakable_code"
ANSWER = "unmistakable_answer"
VARIABLES = {
    "PEFT_DAEMON_LISTEN": "tcp",
    "PEFT_DAEMON_LOG_LEVEL": "debug",
    "PEFT_DAEMON_UPSTREAM_URL": f"https://{USER}:{LOGIN}@models.example/v1?key={KEY}",
    "PEFT_DAEMON_UPSTREAM_KEY_ENV": "PLANTED_KEY",
    "PLANTED_KEY": UPSTREAM_KEY,
}


async def doctor(played: Played, report: Path, *options: str) -> tuple[int | None, str]:
    """Exit code and output of `doctor --report`, as a user with a name and a home."""
    environ = {**os.environ, **played.environ, "HOME": str(played.paths.data.parents[1]), "LOGNAME": USER}
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        "doctor",
        "--report",
        str(report),
        *options,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    return process.returncode, (out + errors).decode()


async def test_a_report_has_all_its_parts_and_nothing_that_was_planted(tmp_path: Path) -> None:
    async with played_home(**VARIABLES, PEFT_DAEMON_MODELS_DIR=str(tmp_path)) as played:
        home = played.paths.data.parents[1]
        played.model.answers({f"{CODE} = ": ANSWER})
        async with await DaemonClient.connect(paths=played.paths, start=False) as client:
            request = CompleteRequest(
                prefix=f'key = "{KEY}"\n{CODE} = ', path=f"{home}/shop/app.py", workspace=f"{home}/shop", document="d"
            )
            assert (await client.complete(request)).text == ANSWER
        daemon = find_running_daemon(played.paths)
        assert daemon is not None
        assert daemon.token
        private_folder(played.paths.state)
        played.paths.log_file.write_text(f"INFO {USER} has {home}/shop and {KEY} and {daemon.token}, {UPSTREAM_KEY}\n")
        report = tmp_path / "report.zip"
        code, said = await doctor(played, report)
        assert code == 1, said  # there is no model in this home
        assert str(report) in said
        assert "nothing was sent" in said
        assert report.stat().st_mode & 0o077 == 0
        with zipfile.ZipFile(report) as archive:
            parts = {name: archive.read(name).decode() for name in archive.namelist()}

        whole = "\n".join(parts.values())
        for planted in (CODE, ANSWER, KEY, daemon.token, UPSTREAM_KEY, LOGIN, USER, str(home)):
            assert planted not in whole, [name for name, text in parts.items() if planted in text]
        for name in parts.keys() - {"README.txt"}:
            assert name in parts["README.txt"]
        assert json.loads(parts["status.json"])["model"]
        assert json.loads(parts["settings.json"])["log_level"] == {"value": "debug", "source": "environment"}
        assert "models.example" in parts["settings.json"]
        assert json.loads(parts["machine.json"])["packages"]["xllamacpp"]
        assert json.loads(parts["why.json"])["shown"]["decision"]["document"] == "app.py" or "shop" in parts["why.json"]
        assert {each["name"] for each in json.loads(parts["checks.json"])} >= {"model", "engine", "daemon"}
        assert "peft_daemon_requests_total" in parts["metrics.txt"]
        assert f"INFO <user> has ~/shop and {MASK} and {MASK}, {MASK}" in parts["log.txt"]

        code, said = await doctor(played, report, "--json")
        assert code == 5
        assert "is there already" in json.loads(said)["error"]["message"]


async def test_without_a_daemon_the_report_says_so(tmp_path: Path) -> None:
    async with played_home(PEFT_DAEMON_MODELS_DIR=str(tmp_path)) as played:
        from peft_daemon.lifecycle.stop import stop_daemon

        await stop_daemon(played.paths)
        report = tmp_path / "report.zip"
        code, said = await doctor(played, report, "--json")
        assert code == 1
        assert json.loads(said)["report"]["parts"][0] == "README.txt"
        with zipfile.ZipFile(report) as archive:
            assert "no daemon runs" in archive.read("status.json").decode()
            assert json.loads(archive.read("adapters.json")) == []


def test_names_are_replaced_as_words_and_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    monkeypatch.setenv("LOGNAME", "anna")
    redact = redactor(secrets=["s3", ""])
    assert (
        redact("/home/anna/x /home/annabel savanna Anna anna@x s3")
        == f"~/x /home/annabel savanna <user> <user>@x {MASK}"
    )
