"""Proposals of the real model, and its suggestions followed from the editor to the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from lsprotocol import types

from support.editor import Editor, taken
from support.running_daemon import run_cli
from support.waiting import until

pytestmark = pytest.mark.model

URI = "file:///project/demo.py"


async def proposed(one: Editor, text: str, start: tuple[int, int], end: tuple[int, int]) -> dict[str, Any]:
    """The names that the text defines once the proposal was taken."""
    one.open(URI, text)
    places = [{"line": line, "character": character} for line, character in (start, end)]
    target = {"uri": URI, "range": {"start": places[0], "end": places[1]}}
    proposal = await one.command("peft-daemon.propose", target)
    names: dict[str, Any] = {}
    exec(compile(taken(text, proposal), "proposed", "exec"), names)
    return names


async def test_a_comment_becomes_code_that_works(one: Editor) -> None:
    text = "def sub(a, b):\n    return a - b\n\n\n# define add(a, b), the sum of two numbers\n"
    assert (await proposed(one, text, (4, 5), (4, 5)))["add"](2, 3) == 5
    assert one.edits == []


async def test_a_selected_sentence_becomes_code_in_its_place(one: Editor) -> None:
    text = "def add(a, b):\n    return the sum of a and b\n"
    assert (await proposed(one, text, (1, 11), (1, 29)))["add"](2, 3) == 5


async def test_what_was_accepted_is_shown_and_exported(one: Editor, environ: Mapping[str, str], tmp_path: Any) -> None:
    run_cli("feedback", "clear", "--yes", environment=environ)
    one.open(URI, "def add(a, b):\n    return ")
    item, *_ = await one.inline(URI, 1, 11)
    assert isinstance(item.insert_text, str)
    assert item.command is not None
    one.edit(URI, (1, 11), (1, 11), item.insert_text)
    await one.command(item.command.command, *item.command.arguments or ())
    one.client.text_document_did_close(types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(URI)))
    (line,) = await until(
        lambda: json.loads(run_cli("feedback", "show", "--json", environment=environ).stdout)["lines"],
        "a line of feedback",
        step_s=0.1,
    )
    assert (line["adapter"], line["language"], line["offers"], line["accepted"]) == ("base", "python", 1, 1.0)
    assert line["still_there"] == 1.0
    assert line["characters_accepted"] == len(item.insert_text)
    run_cli("feedback", "export", str(tmp_path / "out.jsonl"), environment=environ)
    (row,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert row["middle"] == item.insert_text
