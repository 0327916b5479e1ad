"""Settings of single documents, and the pause after a keystroke, as an editor sees them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcRequestCancelled

from support.editor import Editor, editor
from support.played_daemon import Played

HERE = "file:///here/demo.py"
THERE = "file:///there/demo.py"
TEXT = "x = "
PATIENT = {"delayMs": 5000}


def count_questions(one: Editor) -> list[str | None]:
    """The scopes the editor is asked about from now on."""
    scopes: list[str | None] = []
    usual = one.client.get_configuration

    def counted(*, section: str | None = None, scope_uri: str | None = None) -> Any:
        scopes.append(scope_uri)
        return usual(section=section, scope_uri=scope_uri)

    one.client.get_configuration = counted  # type: ignore[method-assign]
    return scopes


async def test_a_document_has_the_settings_of_its_folder_and_is_asked_about_once(played: Played) -> None:
    played.model.answers({TEXT: "1"})
    async with editor(played.environ) as one:
        await one.ready()
        one.client.set_configuration({"enabled": False}, section="peft-daemon", scope_uri="file:///there")
        scopes = count_questions(one)
        one.open(HERE, TEXT)
        one.open(THERE, TEXT)
        shown = [await one.inline(uri, 0, 4, automatic=True) for uri in (HERE, THERE, HERE, THERE)]
        assert list(map(len, shown)) == [1, 0, 1, 0]
        assert scopes == [HERE, THERE]
        assert len(played.model.asked) == 1, "the second time the answer is known"


@pytest.mark.parametrize("news", ["settings", "folders"])
async def test_a_documents_settings_are_asked_for_again_after_a_change(played: Played, news: str) -> None:
    played.model.answers({TEXT: "1"})
    async with editor(played.environ) as one:
        await one.ready()
        one.open(THERE, TEXT)
        assert len(await one.inline(THERE, 0, 4)) == 1
        one.client.set_configuration({"enabled": False}, section="peft-daemon", scope_uri="file:///there")
        assert len(await one.inline(THERE, 0, 4)) == 1, "nothing was told yet"
        if news == "settings":
            one.client.workspace_did_change_configuration(types.DidChangeConfigurationParams(None))
        else:
            event = types.WorkspaceFoldersChangeEvent([types.WorkspaceFolder("file:///there", "there")], [])
            one.client.workspace_did_change_workspace_folders(types.DidChangeWorkspaceFoldersParams(event))
        assert await one.inline(THERE, 0, 4) == []


async def test_suggestions_that_are_on_in_one_folder_only_are_not_shown_as_off(played: Played) -> None:
    played.model.answers({TEXT: "1"})
    async with editor(played.environ, settings={"enabled": False}) as one:
        await one.status(lambda status: status["state"] == "off")
        one.client.set_configuration({"enabled": True}, section="peft-daemon", scope_uri="file:///here")
        one.open(HERE, TEXT)
        one.open(THERE, TEXT)
        assert await one.inline(THERE, 0, 4) == []
        while not await one.inline(HERE, 0, 4):
            await one.news()
        assert one.statuses[-1]["state"] == "idle"
        one.client.text_document_did_close(types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(HERE)))
        await one.status(lambda status: status == one.statuses[-1] and status["state"] == "off")


async def test_in_a_pause_a_newer_request_ends_the_older_one_at_once_and_a_manual_one_does_not_wait(
    played: Played,
) -> None:
    played.model.answers({TEXT: "1"})
    async with editor(played.environ, settings=PATIENT) as one:
        await one.ready()
        one.open(HERE, TEXT)
        first = asyncio.create_task(one.inline(HERE, 0, 4, automatic=True))
        await asyncio.sleep(0)
        second = asyncio.create_task(one.inline(HERE, 0, 4, automatic=True))
        assert await first == []
        assert not second.done()
        assert len(await one.inline(HERE, 0, 4)) == 1
        assert await second == []
        assert len(played.model.asked) == 3, "for the answer and its alternatives"


async def test_a_cancelled_pause_is_answered_at_once_and_asks_nothing(played: Played) -> None:
    async with editor(played.environ, settings=PATIENT) as one:
        await one.ready()
        one.open(HERE, TEXT)
        params = one.inline_params(HERE, 0, 4, automatic=True)
        asked = asyncio.create_task(
            one.client.protocol.send_request_async(types.TEXT_DOCUMENT_INLINE_COMPLETION, params, msg_id="one")
        )
        await asyncio.sleep(0)
        one.client.cancel_request(types.CancelParams("one"))
        with pytest.raises(JsonRpcRequestCancelled):
            await asked
        assert played.model.asked == []


async def test_after_the_pause_the_model_is_asked_unless_the_document_was_edited(played: Played) -> None:
    played.model.answers({TEXT: "1", "y = ": "2"})
    async with editor(played.environ, settings={"delayMs": 50}) as one:
        await one.ready()
        one.open(HERE, TEXT)
        (item,) = await one.inline(HERE, 0, 4, automatic=True)
        assert item.insert_text == "1"
        asked = asyncio.create_task(one.inline(HERE, 0, 4, automatic=True))
        await asyncio.sleep(0)
        one.edit(HERE, (0, 0), (0, 1), "y")
        assert await asked == []
        assert len(played.model.asked) == 1
