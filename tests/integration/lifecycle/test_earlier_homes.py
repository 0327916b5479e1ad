"""Homes that earlier versions wrote, which are opened, and homes of a newer version, which are refused unchanged."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from peft_core.errors import Conflict
from peft_core.home_format import HOME_FORMAT, HomeFormat
from peft_daemon.client import DaemonClient
from support.earlier_homes import NAMES, PRESENT, earlier_home
from support.every_command import COMMANDS, QUICK
from support.many_commands import run
from support.tiny_service import TinyService, ask

WITH_FEEDBACK = [name for name in NAMES if name > "2026-11-25"]
WITH_OWN_MODEL = [name for name in NAMES if name > "2026-11-29-n"]
WITH_CHOSEN_REPOSITORY = [name for name in NAMES if name > "2026-11-30"]
COMMANDS_TRIED = {
    "adapters": ("adapters", "list", "--json"),
    "history": ("adapters", "show", "mine", "--json"),
    "feedback": ("feedback", "show", "--json"),
    "learning": ("learn", "status", "--json"),
    "models": ("models", "list", "--json"),
    "settings": ("config", "--json"),
    "status": ("status", "--json"),
}
NEWER = HomeFormat(HOME_FORMAT + 1, "99.1")
NOT_TRIED = {"serve", "setup"}
"""They take over the process, and `start` meets the same daemon."""
LEAVES_IT_TO_THE_DAEMON = {"status", "why", "stop", "config"}
"""Commands that say nothing of the home's files where no daemon runs."""


def said(service: TinyService) -> dict[str, Any]:
    """What each command prints."""
    calls = [(list(each), {}) for each in COMMANDS_TRIED.values()]
    answers = run(calls, service.variables, cwd=service.root)
    for (arguments, _), (code, out, err) in zip(calls, answers, strict=True):
        assert code == 0, (arguments, out, err)
        assert "Traceback" not in err
    return dict(zip(COMMANDS_TRIED, (json.loads(out) for _, out, _ in answers), strict=True))


@pytest.mark.parametrize("name", NAMES)
async def test_promise_30_a_home_of_an_earlier_version_is_opened_with_all_that_is_in_it(name: str) -> None:
    async with earlier_home(name) as service:
        async with await service.ready() as client:
            chosen, alone = await client.complete(ask(None)), await client.complete(ask())
            assert chosen.adapter is not None
            assert (chosen.adapter.name, alone.adapter) == ("mine", None)
            assert chosen.text != alone.text
        told = said(service)
    assert {(each["name"], *each["active_for"], each["damaged"]) for each in told["adapters"]} == {
        ("mine", "fill", ""),
        ("other", "fill@/tmp/pd-homes/shop", ""),
    }
    assert len(told["history"]["history"]) == 2
    settings = {each["name"]: each["value"] for each in told["settings"]}
    assert settings["max_tokens_fill"] == 24
    assert told["feedback"]["suggestions"] == (3 if name in WITH_FEEDBACK else 0)
    learning = [(each["root"], each["choice"]) for each in told["learning"]["repositories"]]
    assert learning == ([("/tmp/pd-homes/shop", "on")] if name in WITH_CHOSEN_REPOSITORY else [])
    assert ("own" in {each["id"] for each in told["models"]}) == (name in WITH_OWN_MODEL)
    assert told["status"]["running"]


@pytest.mark.parametrize("name", WITH_FEEDBACK)
async def test_promise_30_text_that_was_kept_without_asking_is_never_used_and_a_key_in_it_is_gone(name: str) -> None:
    async with earlier_home(name) as service:
        asked = service.settings.feedback == "text"
        rows = [*service.feedback.rows()]
        assert [row.record.offer for row in rows] == ["offer 0", "offer 1", "offer 2"]
        assert [row.has_text for row in rows] == [asked] * 3
        with closing(sqlite3.connect(service.paths.feedback_file)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        kept = b"".join(path.read_bytes() for path in service.paths.feedback_file.parent.iterdir())
        assert b"k9X2-not-a-key" not in kept


def content(folder: Path) -> dict[str, str]:
    """Hash of each file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def make_newer(service: TinyService) -> None:
    """What a later version could do to a home: a new file, fields and values that mean nothing here."""
    data = service.paths.data
    names = json.loads((data / "adapters" / "names.json").read_text())
    (data / "adapters" / "names.json").write_text(json.dumps({**names, "pinned": ["mine"]}))
    learning = data / "learning" / "repository-6c7c05d40242e88b.json"
    state = json.loads(learning.read_text()) if learning.exists() else {"root": "/tmp/pd-homes/shop"}
    learning.parent.mkdir(exist_ok=True)
    learning.write_text(json.dumps({**state, "choice": "on Sundays"}))
    (data / "format.json").write_bytes(msgspec.json.encode(NEWER))


async def test_promise_30_a_home_of_a_newer_version_is_refused_in_one_line_and_no_byte_of_it_is_changed() -> None:
    async with earlier_home(PRESENT) as service:
        make_newer(service)
        folders = (service.paths.data, service.paths.config, service.paths.cache)
        before = [content(folder) for folder in folders]
        (service.root / "a.py").write_text("x = \n")
        commands = [each for each in QUICK if each not in NOT_TRIED]
        calls = [
            ([*each.split(), *(word.format(folder=service.root) for word in COMMANDS[each])], {}) for each in commands
        ]
        for command, (code, out, err) in zip(commands, run(calls, service.variables, cwd=service.root), strict=True):
            told = f"{command} ended with {code}: {out}\n{err}"
            assert "Traceback" not in out + err, told
            if command in LEAVES_IT_TO_THE_DAEMON:
                continue
            if command == "doctor":
                assert "were written by peft-daemon 99.1, which is newer than this one" in out, told
                continue
            assert code == Conflict.exit_code, told
            lines = [line for line in err.splitlines() if line.startswith("peft-daemon: ")]
            assert len(lines) == 1, told
            assert "99.1" in lines[0], told
            assert "Update this installation" in lines[0], told
        with pytest.raises(Conflict, match="newer than this one"):
            await DaemonClient.connect(service.settings, service.paths)
        assert [content(folder) for folder in folders] == before


async def test_promise_30_a_daemon_leaves_when_a_newer_version_has_written_its_home() -> None:
    async with earlier_home(PRESENT) as service:
        async with await service.ready() as client:
            process = client.info.process
            make_newer(service)
            before = content(service.paths.data)
            assert await process.ends_within(60)
        assert content(service.paths.data) == before
        assert "a newer peft-daemon has written this home" in service.paths.log_file.read_text()


async def test_promise_30_a_home_says_which_format_it_has() -> None:
    async with earlier_home(NAMES[0]) as service:
        assert not (service.paths.data / "format.json").exists()
        ((code, _, _),) = run([(["adapters", "list"], {})], service.variables)
        assert code == 0
        written = msgspec.json.decode((service.paths.data / "format.json").read_bytes(), type=HomeFormat)
        assert written.format == HOME_FORMAT
