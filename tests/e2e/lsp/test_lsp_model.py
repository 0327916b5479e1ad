"""What a programmer sees: the real language server, daemon and model behind an editor that keeps to the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import psutil
import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcRequestCancelled

from support.editor import INLINE, WORKSPACE, Editor, applied, editor

pytestmark = pytest.mark.model

URI = "file:///project/demo.py"
ADD = "def add(a, b):\n    return "
LONG = "import unittest\n\n\nclass TestList(unittest.TestCase):\n    def test_append(self):\n        "
"""The model writes on here until its tokens are used up."""


def run(code: str) -> dict[str, Any]:
    """The names a piece of generated code defines (chosen above: additions and the like)."""
    names: dict[str, Any] = {}
    exec(compile(code, "generated", "exec"), names)
    return names


async def text_at_end(one: Editor, text: str, uri: str = URI) -> str:
    """``text`` with what the editor shows at its end."""
    one.open(uri, text)
    lines = text.split("\n")
    item, *_ = await one.inline(uri, len(lines) - 1, len(lines[-1].encode("utf-16-le")) // 2)
    return applied(text, item)


async def test_the_middle_of_a_function_is_filled_with_code_that_works(one: Editor) -> None:
    assert run(await text_at_end(one, ADD))["add"](2, 3) == 5


async def test_the_status_tells_of_the_model_and_the_answer(one: Editor) -> None:
    await text_at_end(one, ADD)
    status = await one.status(lambda each: each["latencyMs"] is not None)
    assert status["model"] == "qwen2.5-coder-0.5b-instruct"
    assert "thinking" in [each["state"] for each in one.statuses]
    assert (await one.command("peft-daemon.status"))["daemon"]["model"] == status["model"]


async def test_a_comment_that_asks_for_code_gets_it(one: Editor) -> None:
    text = "def sub(a, b):\n    return a - b\n\n\n# define add(a, b), the sum of two numbers\n"
    assert run(await text_at_end(one, text))["add"](2, 3) == 5


async def test_a_comment_alone_in_a_file_gets_code_and_not_more_comments(one: Editor) -> None:
    assert run(await text_at_end(one, "# write a function add that adds a and b\n"))["add"](2, 3) == 5


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
async def test_a_line_with_emoji_is_completed_at_the_right_place(environ: Mapping[str, str], encoding: str) -> None:
    before, after = 'face = "😀"\nprint("😀" + fa', ")\n"
    general = types.GeneralClientCapabilities(position_encodings=[encoding])
    capabilities = types.ClientCapabilities(general=general, text_document=INLINE)
    async with editor(environ, capabilities=capabilities, options={"showAfterMs": 0}) as one:
        await one.ready()
        one.open(URI, before + after)
        line = before.split("\n")[1]
        width = {"utf-8": 1, "utf-16": 2, "utf-32": 4}[encoding]
        column = len(line.encode({"utf-8": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}[encoding])) // width
        item, *_ = await one.inline(URI, 1, column)
    assert item.range is not None
    assert item.range.start == types.Position(1, column)
    replaced = item.range.end.character - column
    assert replaced in (0, 1)
    assert compile(before + str(item.insert_text) + after[replaced:], "completed", "exec")
    assert str(item.insert_text).startswith("ce")


async def test_a_suggestion_is_shown_when_it_has_begun_and_grows_to_what_it_would_have_been(
    one: Editor, environ: Mapping[str, str]
) -> None:
    one.open(URI, LONG)
    (whole,) = await one.inline(URI, 5, 8, automatic=True)
    async with editor(environ, settings={"maxTokens": 48, "showAfterMs": 1}) as other:
        await other.ready()
        other.open(URI, LONG)
        more = asyncio.create_task(other.more())
        await asyncio.sleep(0)
        (part,) = await other.inline(URI, 5, 8, automatic=True)
        told = await more
        assert (told["uri"], told["version"]) == (URI, 1)
        grown, *_ = await other.inline(URI, 5, 8)
    assert len(str(part.insert_text)) < len(str(grown.insert_text))
    assert grown.insert_text == whole.insert_text


async def test_a_file_with_windows_line_ends_keeps_them(one: Editor) -> None:
    one.open(URI, LONG.replace("\n", "\r\n"))
    item, *_ = await one.inline(URI, 5, 8)
    assert isinstance(item.insert_text, str)
    assert "\r\n" in item.insert_text
    assert "\n" not in item.insert_text.replace("\r\n", "")


async def test_a_file_of_20_megabytes_is_completed_like_any_other(one: Editor) -> None:
    line = "value = 'one line of very many in this file, as in generated code'\n"
    count = 20_000_000 // len(line) // 2
    one.open(URI, line * count + ADD + "\n\n\n" + line * count)
    item, *_ = await one.inline(URI, count + 1, 11)
    assert "a + b" in str(item.insert_text)
    one.edit(URI, (count, 8), (count, 14), "(first, second)")
    item, *_ = await one.inline(URI, count + 1, 11)
    assert "first + second" in str(item.insert_text)


async def test_an_answer_for_a_document_that_was_edited_meanwhile_is_empty(one: Editor) -> None:
    one.open(URI, ADD)
    asked = asyncio.create_task(one.inline(URI, 1, 11))
    await one.status(lambda each: each["state"] == "thinking")
    one.edit(URI, (0, 0), (0, 0), "# a remark\n")
    assert await asked == []


async def test_the_newest_request_of_a_document_wins_and_the_older_one_is_answered(one: Editor) -> None:
    one.open(URI, LONG)
    older = asyncio.create_task(one.inline(URI, 5, 8))
    await one.status(lambda each: each["state"] == "thinking")
    newer = asyncio.create_task(one.inline(URI, 5, 8))
    assert await older == []
    assert await newer


async def test_documents_of_two_editors_do_not_supersede_each_other(one: Editor, environ: Mapping[str, str]) -> None:
    async with editor(environ, settings={"maxTokens": 48}) as other:
        await other.ready()
        one.open(URI, LONG)
        other.open(URI, ADD)
        answers = await asyncio.gather(one.inline(URI, 5, 8), other.inline(URI, 1, 11))
    assert all(answers)


async def test_a_cancelled_request_is_answered_so_and_the_model_stops(one: Editor) -> None:
    one.open(URI, LONG)
    params = one.inline_params(URI, 5, 8)
    asked = asyncio.create_task(
        one.client.protocol.send_request_async(types.TEXT_DOCUMENT_INLINE_COMPLETION, params, msg_id="one")
    )
    await one.status(lambda each: each["state"] == "thinking")
    one.client.cancel_request(types.CancelParams("one"))
    with pytest.raises(JsonRpcRequestCancelled) as cancelled:
        await asked
    assert cancelled.value.code == -32800
    assert "a + b" in await text_at_end(one, ADD, "file:///project/other.py")
    status = (await one.command("peft-daemon.status"))["daemon"]
    assert status["active_requests"] == status["queued_requests"] == 0


async def test_a_request_of_the_editor_itself_is_not_made_where_a_word_follows(one: Editor) -> None:
    one.open(URI, "def add(a, b):\n    return a + bob")
    seen = len(one.statuses)
    assert await one.inline(URI, 1, 11, automatic=True) == []
    assert len(one.statuses) == seen


async def test_a_choice_in_the_open_list_is_taken_as_typed(one: Editor) -> None:
    one.open(URI, "import os.path\n\nname = os.path.joi\n")
    params = one.inline_params(URI, 2, 18)
    span = types.Range(types.Position(2, 15), types.Position(2, 18))
    params.context.selected_completion_info = types.SelectedCompletionInfo(span, "join")
    answer = await one.client.text_document_inline_completion_async(params)
    item = answer.items[0]  # asked by hand, so there may be alternatives
    assert item.range == types.Range(types.Position(2, 15), types.Position(2, 18))
    assert item.insert_text.startswith("join(")
    params.context.selected_completion_info = types.SelectedCompletionInfo(span, "basename")
    assert not (await one.client.text_document_inline_completion_async(params)).items


async def test_an_editor_without_ghost_text_gets_an_item_of_the_list(environ: Mapping[str, str]) -> None:
    capabilities = types.ClientCapabilities(workspace=WORKSPACE)
    async with editor(environ, capabilities=capabilities) as one:
        await one.ready()
        text = "def add(first, second):\n    return fir\n"
        one.open(URI, text)
        answer = await one.client.text_document_completion_async(
            types.CompletionParams(types.TextDocumentIdentifier(URI), types.Position(1, 14))
        )
        assert answer.is_incomplete
        (item,) = answer.items
        edit = item.text_edit
        assert item.filter_text == "fir"
        assert item.label.startswith("first + second")
        assert edit.range == types.Range(types.Position(1, 11), types.Position(1, 14))
        completed = applied(text, types.InlineCompletionItem(edit.new_text, range=edit.range))
        assert run(completed)["add"](2, 3) == 5


async def test_a_language_can_be_switched_off(environ: Mapping[str, str]) -> None:
    async with editor(environ, settings={"disabledLanguages": ["python"]}) as one:
        await one.ready()
        one.open(URI, ADD)
        assert await one.inline(URI, 1, 11) == []


async def test_adapters_can_be_listed_and_chosen_and_a_wrong_name_is_explained(one: Editor) -> None:
    assert await one.command("peft-daemon.listAdapters") == []
    assert await one.command("peft-daemon.switchAdapter", "base") is None
    with pytest.raises(JsonRpcException, match="no-such-adapter") as failure:
        await one.command("peft-daemon.switchAdapter", "no-such-adapter")
    assert failure.value.code == types.LSPErrorCodes.RequestFailed
    with pytest.raises(JsonRpcException) as failure:
        await one.command("peft-daemon.switchAdapter", "base", "no-such-task")
    assert failure.value.code == types.ErrorCodes.InvalidParams


class TestGenerate:
    """The command behind the code action."""

    COMMENT = "import math\n\n\nclass Sums:\n    # a method add(self, a, b) that returns the sum of a and b\n\n"
    DOCSTRING = 'def add(a: int, b: int) -> int:\n    """Return the sum of a and b."""\n'

    def inserted(self, text: str, edit: types.WorkspaceEdit) -> str:
        assert edit.document_changes is not None
        (change,) = edit.document_changes
        assert isinstance(change, types.TextDocumentEdit)
        assert change.text_document.version == 1
        (one_edit,) = change.edits
        assert isinstance(one_edit, types.TextEdit)
        return applied(text, types.InlineCompletionItem(one_edit.new_text, range=one_edit.range))

    def token(self, one: Editor) -> types.ProgressToken:
        (token,) = (token for token, reports in one.client.progress_reports.items() if reports[0].cancellable)
        return token

    async def test_code_for_a_comment_goes_in_below_it_at_its_indentation(self, one: Editor) -> None:
        one.open(URI, self.COMMENT)
        assert await one.command("peft-daemon.generate", {"uri": URI, "line": 4}) is True
        names = run(self.inserted(self.COMMENT, one.edits[0]))
        assert names["Sums"]().add(2, 3) == 5
        reports = one.client.progress_reports[self.token(one)]
        assert isinstance(reports[1], types.WorkDoneProgressReport)
        assert isinstance(reports[-1], types.WorkDoneProgressEnd)

    async def test_a_function_gets_the_body_its_docstring_asks_for(self, one: Editor) -> None:
        one.open(URI, self.DOCSTRING)
        assert await one.command("peft-daemon.generate", {"uri": URI, "line": 0}) is True
        assert run(self.inserted(self.DOCSTRING, one.edits[0]))["add"](2, 3) == 5

    async def test_it_can_be_stopped_from_the_progress_bar(self, one: Editor) -> None:
        one.open(URI, self.COMMENT)
        asked = asyncio.create_task(one.command("peft-daemon.generate", {"uri": URI, "line": 4}))
        await one.status(lambda each: each["state"] == "thinking")
        token = self.token(one)
        one.client.window_work_done_progress_cancel(types.WorkDoneProgressCancelParams(token))
        assert await asked is False
        assert one.edits == []
        assert isinstance(one.client.progress_reports[token][-1], types.WorkDoneProgressEnd)

    async def test_cancelling_the_request_stops_it_too(self, one: Editor) -> None:
        one.open(URI, self.COMMENT)
        params = types.ExecuteCommandParams("peft-daemon.generate", [{"uri": URI, "line": 4}])
        asked = asyncio.create_task(
            one.client.protocol.send_request_async(types.WORKSPACE_EXECUTE_COMMAND, params, msg_id="one")
        )
        await one.status(lambda each: each["state"] == "thinking")
        one.client.cancel_request(types.CancelParams("one"))
        with pytest.raises(JsonRpcRequestCancelled):
            await asked
        await one.status(lambda each: each == one.statuses[-1] and each["state"] == "idle")
        assert one.edits == []

    async def test_nothing_is_inserted_below_a_comment_that_was_changed_meanwhile(self, one: Editor) -> None:
        one.open(URI, self.COMMENT)
        asked = asyncio.create_task(one.command("peft-daemon.generate", {"uri": URI, "line": 4}))
        await one.status(lambda each: each["state"] == "thinking")
        one.edit(URI, (4, 6), (4, 6), "really ")
        assert await asked is False
        assert one.edits == []
        assert "changed" in one.client.messages[-1].message

    async def test_an_editor_that_refuses_the_code_is_reported(self, one: Editor) -> None:
        one.takes_edits = False
        one.open(URI, self.DOCSTRING)
        assert await one.command("peft-daemon.generate", {"uri": URI, "line": 0}) is False
        assert "read-only" in one.client.messages[-1].message


class TestRestarts:
    """The daemon goes away under the editor."""

    async def pid(self, one: Editor) -> int:
        pid: int = (await one.command("peft-daemon.status"))["daemon"]["pid"]
        return pid

    async def test_after_the_daemon_was_killed_the_next_requests_find_a_new_one(self, one: Editor) -> None:
        old = await self.pid(one)
        psutil.Process(old).kill()
        one.open(URI, ADD)
        while not (items := await one.inline(URI, 1, 11)):
            await one.news()
        assert "a + b" in str(items[0].insert_text)
        assert await self.pid(one) != old

    async def test_while_the_model_loads_answers_are_empty_and_then_they_are_not(self, one: Editor) -> None:
        one.open(URI, ADD)
        old = await self.pid(one)
        restarting = asyncio.create_task(one.command("peft-daemon.restart"))
        await one.status(lambda each: each["state"] == "loading" and each["message"] == "restarting")
        assert await one.inline(URI, 1, 11) == []
        assert await restarting is None
        item, *_ = await one.inline(URI, 1, 11)
        assert "a + b" in str(item.insert_text)
        assert await self.pid(one) != old
        titles = [reports[0].title for reports in one.client.progress_reports.values()]
        assert any("Loading" in title or "Starting" in title for title in titles)
