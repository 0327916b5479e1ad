"""Edits by an instruction, documentation and tests of a function: proposed, growing, and never applied unseen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcRequestCancelled

from support.editor import Editor, editor, taken
from support.played_daemon import HERE, Played

URI = "file:///project/cart.py"
CART = "class Cart:\r\n    def total(self):\r\n        x = sum(self.items)\r\n        return x\r\n"
RENAMED = "def total(self):\n    result = sum(self.items)\n    return result\n"
TOKEN = {"partialResultToken": "grows"}


def target(start: tuple[int, int], end: tuple[int, int] | None = None, **more: str) -> dict[str, Any]:
    places = [{"line": line, "character": character} for line, character in (start, end or start)]
    return {"uri": URI, "range": {"start": places[0], "end": places[1]}, **more}


async def asked(one: Editor, command: str, *where: tuple[int, int], **more: str) -> Any:
    return await one.command(f"peft-daemon.{command}", target(*where, **more))


@pytest.mark.parametrize("where", [((1, 4), (3, 10)), ((1, 0), (4, 0)), ((2, 9), (2, 9))])
async def test_the_selected_lines_or_the_function_at_the_cursor_are_replaced_as_a_whole(
    played: Played, where: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    played.model.answers({"```python\n": RENAMED})
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, CART)
        proposal = await asked(one, "edit", *where, instruction="rename x to result")
        assert taken(CART, proposal) == CART.replace("x = ", "result = ").replace("return x", "return result")
        assert (proposal["uri"], proposal["version"], proposal["title"]) == (URI, 1, "rename x to result")
        (prompt,) = played.model.asked
        assert "def total(self):\n    x = sum" in prompt, "without indentation and with one kind of line end"
        assert "class Cart:" in prompt, "what stands above is shown"
        assert one.edits == []
        assert one.partial_results == []


async def test_it_grows_for_an_editor_that_gives_a_token(played: Played) -> None:
    first, rest = RENAMED.split("    return")
    played.model.answers({"```python\n": f"{first}{HERE}    return{rest}"})
    played.model.hold_rest()
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, CART)
        asking = asyncio.create_task(asked(one, "edit", (1, 0), (4, 0), instruction="rename", **TOKEN))
        while not one.partial_results:
            await one.news()
        grown = one.partial_results[-1]
        assert grown["newText"] == "    def total(self):\r\n        result = sum(self.items)"
        assert not asking.done()
        played.model.let_go()
        proposal = await asking
        assert proposal["newText"].startswith(grown["newText"])
        assert {**proposal, "newText": ""} == {**grown, "newText": ""}


async def test_code_for_a_comment_grows_as_well(played: Played) -> None:
    text = "# add two numbers\n"
    played.model.answers({"```python\n": f"def add(a, b):\n    total = a + b\n{HERE}    return total\n"})
    played.model.hold_rest()
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, text)
        asking = asyncio.create_task(asked(one, "propose", (0, 3), **TOKEN))
        while not one.partial_results:
            await one.news()
        assert one.partial_results[-1]["newText"].startswith("\ndef add(a, b):")
        played.model.let_go()
        proposal = await asking
        assert taken(text, proposal) == text + "def add(a, b):\n    total = a + b\n    return total\n"


async def test_a_stopped_edit_stops_the_model_and_proposes_nothing(played: Played) -> None:
    played.model.hold()
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, CART)
        params = types.ExecuteCommandParams("peft-daemon.edit", [target((1, 0), (4, 0), instruction="x")])
        asking = asyncio.create_task(
            one.client.protocol.send_request_async(types.WORKSPACE_EXECUTE_COMMAND, params, msg_id="one")
        )
        await one.status(lambda status: status["state"] == "thinking")
        one.client.cancel_request(types.CancelParams("one"))
        with pytest.raises(JsonRpcRequestCancelled):
            await asking
        await one.status(lambda status: status == one.statuses[-1] and status["state"] == "idle")
        assert one.edits == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("", "no answer"),
        ("def total(self):\n    x = sum(self.items)\n    return x\n", "changed nothing"),
    ],
)
async def test_what_is_no_edit_is_told_and_not_proposed(played: Played, answer: str, message: str) -> None:
    played.model.answers({"```python\n": answer})
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, CART)
        assert await asked(one, "edit", (1, 0), (4, 0), instruction="do it") is None
        assert message in one.client.messages[-1].message


async def test_a_document_that_was_edited_meanwhile_gets_no_edit(played: Played) -> None:
    played.model.answers({"```python\n": RENAMED})
    played.model.hold()
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, CART)
        asking = asyncio.create_task(asked(one, "edit", (1, 0), (4, 0), instruction="rename"))
        await one.status(lambda status: status["state"] == "thinking")
        one.edit(URI, (0, 0), (0, 0), "\n")
        await one.inline("file:///project/none.py", 0, 0)  # by its answer the edit has arrived
        played.model.let_go()
        assert await asking is None
        assert "edited meanwhile" in one.client.messages[-1].message


async def test_a_function_is_documented_where_its_language_has_that(played: Played) -> None:
    played.model.answers({'"""': "Return the sum.", "/**\n *": " The sum.\n "})
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, CART)
        proposal = await asked(one, "document", (2, 3))
        head = "    def total(self):\r\n"
        assert taken(CART, proposal) == CART.replace(head, f'{head}        """Return the sum."""\r\n')
        script = "class Box {\n  area() {\n    return this.w;\n  }\n}\n"
        one.edit(URI, (0, 0), (9, 0), "")
        one.client.text_document_did_close(types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(URI)))
        one.open(URI, script, "javascript")
        proposal = await asked(one, "document", (2, 3))
        assert taken(script, proposal) == script.replace("  area", "  /**\n   * The sum.\n   */\n  area")


async def test_a_test_of_a_function_is_for_a_file_of_its_own(played: Played) -> None:
    played.model.answers({"def test_total": "():\n    assert Cart([1]).total() == 1\n"})
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, CART)
        proposal = await asked(one, "test", (2, 3))
        assert proposal["fileName"] == "test_cart.py"
        assert proposal["newText"].replace("\r\n", "\n") == (
            "from cart import Cart\n\n\ndef test_total():\n    assert Cart([1]).total() == 1\n"
        )


async def test_code_actions_for_a_function_are_offered_to_an_editor_that_shows_proposals(played: Played) -> None:
    documented = 'def f(x):\n    """Same."""\n    return x\n\n\ndef g(x):\n    return x\n'

    async def offered(one: Editor, line: int, only: list[str] | None = None) -> list[str]:
        place = types.Range(types.Position(line, 0), types.Position(line, 0))
        context = types.CodeActionContext([], only=only)
        params = types.CodeActionParams(types.TextDocumentIdentifier(URI), place, context)
        return [each.title for each in await one.client.text_document_code_action_async(params) or ()]

    async with editor(played.environ, options={"proposals": True}) as one:
        one.open(URI, documented)
        assert await offered(one, 6) == ["Document g", "Write a test of g"]
        assert await offered(one, 2) == ["Write a test of f"]
        assert await offered(one, 3) == []
        assert await offered(one, 6, ["refactor.rewrite.test"]) == ["Write a test of g"]
    async with editor(played.environ) as one:
        one.open(URI, documented)
        assert await offered(one, 6) == []


@pytest.mark.parametrize(
    ("command", "where", "instruction", "message"),
    [
        ("edit", (5, 0), "x", "nothing to edit"),
        ("edit", (1, 0), " ", "no instruction"),
        ("edit", (1, 0), "x" * 2001, "2001 characters"),
        ("document", (5, 0), "", "no function here"),
        ("test", (5, 0), "", "no function here"),
        ("document", (7, 0), "", "documented already"),
    ],
)
async def test_what_cannot_be_done_is_said_with_what_to_do(
    played: Played, command: str, where: tuple[int, int], instruction: str, message: str
) -> None:
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, f'{CART}\n\ndef f():\n    """Documented."""\n')
        with pytest.raises(JsonRpcException, match=message) as failure:
            await asked(one, command, where, instruction=instruction)
        assert failure.value.code == types.LSPErrorCodes.RequestFailed
        assert played.model.asked == []


async def test_of_a_file_with_secrets_nothing_is_asked(played: Played) -> None:
    uri = "file:///project/.env"
    async with editor(played.environ) as one:
        await one.ready()
        one.open(uri, "A=1\n", "properties")
        for command in ("edit", "document", "test"):
            question = {**target((0, 0), instruction="x"), "uri": uri}
            assert await one.command(f"peft-daemon.{command}", question) is None
        assert "secrets" in one.client.messages[-1].message
        assert played.model.asked == []
