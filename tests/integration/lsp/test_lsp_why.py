"""`why` tells of an editor's last suggestion and silence: real server, real daemon, command line, a played model."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from peft_core.decisions import Decider, WhyAnswer, WhyQuery
from peft_daemon.client import DaemonClient
from support.editor import editor, uri_of
from support.played_daemon import Played
from support.waiting import until_answer

COMMAND = str(Path(sys.executable).with_name("peft-daemon"))
ANSWERS = {"x = ": "unmistakable"}


async def command_line(played: Played, *arguments: str) -> tuple[int | None, str]:
    """Exit code and output of `peft-daemon why`."""
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        "why",
        *arguments,
        env={**played.environ, "PATH": ""},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_the_editor_and_the_command_line_tell_what_both_parts_decided(played: Played, tmp_path: Path) -> None:
    played.model.answers(ANSWERS)
    shop = tmp_path / "shop"
    code, notes, keys = (uri_of(shop / name) for name in ("app.py", "notes.md", ".env"))
    async with editor(played.environ, settings={"showAfterMs": 0}, folders=[uri_of(shop)]) as one:
        await one.ready()
        one.open(code, "x = \nword", "python")
        (item,) = await one.inline(code, 0, 4, automatic=True)
        assert item.insert_text == "unmistakable"
        assert await one.inline(code, 1, 0, automatic=True) == []
        told: dict[str, Any] = await one.command("peft-daemon.why")
        assert told["shown"]["decision"]["document"] == "app.py"
        assert told["shown"]["decision"]["line"] == 1
        assert told["silent"]["decision"]["decider"] == Decider.IN_WORD
        assert "app.py:2:1  nothing" in told["text"]
        one.open(notes, "- ", "markdown")
        assert await one.inline(notes, 0, 2, automatic=True) == []
        one.open(keys, "KEY=", "dotenv")
        assert await one.inline(keys, 0, 4, automatic=True) == []
        told = await one.command("peft-daemon.why", notes)
        assert told["shown"] is None
        assert "disabledLanguages" in told["silent"]["words"]

        # The daemon has been told of all, so the command line knows them too.
        code_of_exit, text = await command_line(played)
        assert code_of_exit == 0, text
        assert "app.py:1:5  12 characters" in text
        assert "hold secrets" in text
        _, listed = await command_line(played, "--last", "9", "--json")
        deciders = [each["decision"]["decider"] for each in json.loads(listed)["decisions"]]
        assert deciders == ["secret_file", "language", "in_word", "model"]
        for said in (listed, text):
            assert "unmistakable" not in said
            assert str(tmp_path) not in said


async def test_silences_reach_the_daemon_by_themselves(played: Played, tmp_path: Path) -> None:
    uri = uri_of(tmp_path / "app.py")
    async with editor(played.environ) as one:
        await one.ready()
        one.open(uri, "word")
        assert await one.inline(uri, 0, 0, automatic=True) == []
        async with await DaemonClient.connect(paths=played.paths, start=False) as client:

            async def ask() -> WhyAnswer:
                return await client.why(WhyQuery(last=1))

            await until_answer(ask, lambda answer: bool(answer.decisions), "what the language server decided")


async def test_without_a_daemon_the_editor_still_tells_and_the_command_line_says_so(
    bare: dict[str, str], tmp_path: Path
) -> None:
    uri = uri_of(tmp_path / "app.py")
    async with editor(bare) as one:
        await one.status(lambda each: each["state"] == "error")
        one.open(uri, "x = ")
        assert await one.inline(uri, 0, 4, automatic=True) == []
        told = await one.command("peft-daemon.why")
    assert told["silent"]["decision"]["decider"] == Decider.CONNECTION
    assert "models pull" in told["silent"]["words"]
    code, said = await command_line(Played(bare, None, []))  # type: ignore[arg-type]
    assert code == 6
    assert "no daemon runs" in said
    assert "peft-daemon start" in said
