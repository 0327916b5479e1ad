"""The model reads ahead where an editor's cursor is: real server, real daemon, a model that notes what it reads."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from peft_lsp.prefetch import HEAD_LINES
from support.editor import Editor, editor
from support.played_daemon import Played
from support.waiting import until

URI, OTHER = "file:///project/demo.py", "file:///project/other.py"
TEXT = "".join(f"name_{number} = {number}\n" for number in range(HEAD_LINES + 20))


async def read(played: Played, count: int = 1) -> list[str]:
    """What was read, as soon as it is so many prompts."""
    return await until(
        lambda: found if len(found := played.model.read) >= count else None, f"{count} prompts that are read"
    )


def line_of(prompt: str) -> str:
    """The line that the prompt ends before."""
    return prompt.rstrip("\n").rpartition("\n")[2]


async def test_the_head_of_what_is_opened_is_read_before_anybody_asks(played: Played) -> None:
    async with editor(played.environ) as one:
        await one.ready()
        states = len(one.statuses)
        one.open(URI, TEXT)
        (prompt,) = await read(played)
        assert line_of(prompt) == f"name_{HEAD_LINES - 1} = {HEAD_LINES - 1}"
        assert played.model.asked == []
        assert len(one.statuses) == states


async def test_a_document_opened_before_the_model_is_loaded_is_read_when_it_is(played: Played) -> None:
    async with editor(played.environ) as one:
        one.open(URI, TEXT)
        assert len(await read(played)) == 1


async def test_where_the_cursor_rests_and_after_saving_an_edit_it_is_read(played: Played) -> None:
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, TEXT)
        one.move(URI, 50, 12)
        (prompt,) = await read(played)
        assert line_of(prompt) == "name_50 = 50"
        one.edit(URI, (50, 12), (50, 12), "\nfirst = 1")
        one.save(URI)
        prompts = await read(played, 2)
        assert line_of(prompts[1]) == "first = 1"


async def test_silence_after_an_edit_is_used_if_no_completion_was_asked_for(played: Played) -> None:
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, TEXT)
        await read(played)
        one.edit(URI, (50, 12), (50, 12), "\nfirst = 1")
        assert line_of((await read(played, 2))[1]) == "first = 1"


@pytest.mark.parametrize("settings", [{"enabled": False}, {"disabledLanguages": ["python"]}])
async def test_where_completions_are_off_nothing_is_read(played: Played, settings: dict[str, Any]) -> None:
    async with editor(played.environ) as one:
        await one.ready()
        one.client.set_configuration(settings, section="peft-daemon", scope_uri="file:///project")
        one.open(URI, TEXT)
        one.move(URI, 50, 0)
        await settings_were_asked(one)
        one.open("file:///elsewhere/other.py", TEXT.replace("name", "other"))
        one.move("file:///elsewhere/other.py", 50, 0)
        (prompt,) = await read(played)
        assert line_of(prompt).startswith("other_50")


async def settings_were_asked(one: Editor) -> None:
    """Wait until the server wants to know a document's settings, and has the answer."""
    asked = asyncio.Event()
    usual = one.client.get_configuration

    def noted(*, section: str | None = None, scope_uri: str | None = None) -> Any:
        if scope_uri is not None:
            asked.set()
        return usual(section=section, scope_uri=scope_uri)

    one.client.get_configuration = noted  # type: ignore[method-assign]
    await asked.wait()
    assert await one.command("peft-daemon.status")


async def test_the_completion_after_it_is_the_models(played: Played) -> None:
    played.model.answers({"value = ": "1"})
    async with editor(played.environ, folders=["file:///project"]) as one:
        await one.ready()
        one.open(URI, "value = ")
        one.move(URI, 0, 8)
        await read(played)
        (item,) = await one.inline(URI, 0, 8, automatic=True)
        assert item.insert_text == "1"
