"""Code as a proposal: what the model is asked, and that the edit fits the document it was made for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams, JsonRpcRequestCancelled

from support.editor import Editor, editor, taken
from support.played_daemon import Played

URI = "file:///project/demo.py"


def target(start: tuple[int, int], end: tuple[int, int] | None = None, uri: str = URI) -> dict[str, Any]:
    places = [{"line": line, "character": character} for line, character in (start, end or start)]
    return {"uri": uri, "range": {"start": places[0], "end": places[1]}}


async def proposed(one: Editor, *where: tuple[int, int], uri: str = URI) -> dict[str, Any]:
    answer: dict[str, Any] = await one.command("peft-daemon.propose", target(*where, uri=uri))
    return answer


async def test_code_for_a_comment_is_proposed_below_it_and_nothing_is_edited(played: Played) -> None:
    text = "class Sums:\n    # add two\n    # numbers\n\n    x = 1\n"
    played.model.answers({"# numbers\n    ": "def add(self, a, b):\n        return a + b"})
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, text)
        for where in [((1, 8),), ((1, 0), (3, 0)), ((2, 6), (2, 9))]:
            proposal = await proposed(one, *where)
            assert (proposal["uri"], proposal["version"], proposal["title"]) == (URI, 1, "add two numbers")
            assert taken(text, proposal) == text.replace(
                "# numbers\n", "# numbers\n    def add(self, a, b):\n        return a + b\n"
            )
        assert one.edits == []


async def test_a_docstring_gets_its_body(played: Played) -> None:
    text = 'def add(a, b):\n    """Return the sum."""\n'
    played.model.answers({'sum."""\n    ': "return a + b"})
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, text)
        proposal = await proposed(one, (0, 4))
        assert taken(text, proposal) == text + "    return a + b\n"
        assert proposal["title"] == "Return the sum."


async def test_a_selected_sentence_is_replaced_and_the_model_sees_it_as_a_comment(played: Played) -> None:
    text = "def mean(xs):\r\n    total = die Summe aller 😀 Zahlen\r\n    return total / len(xs)\r\n"
    played.model.answers({"    # die Summe aller 😀 Zahlen\n    total = ": "sum(xs)"})
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, text)
        end = len("    total = die Summe aller 😀 Zahlen") + 1  # the emoji has two columns
        proposal = await proposed(one, (1, 11), (1, end))
        assert taken(text, proposal) == text.replace("die Summe aller 😀 Zahlen", "sum(xs)")
        assert proposal["title"] == "die Summe aller 😀 Zahlen"


async def test_a_selected_comment_behind_code_gets_its_code_on_the_next_line(played: Played) -> None:
    text = "xs = [3, 1]  # print the largest one\n"
    played.model.answers({"largest one\n": "print(max(xs))"})
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, text)
        proposal = await proposed(one, (0, 13), (0, 36))
        assert taken(text, proposal) == text + "print(max(xs))\n"
        assert proposal["title"] == "print the largest one"


async def test_a_sentence_in_a_text_document_is_answered_in_python(played: Played) -> None:
    uri = "file:///project/notes.md"
    async with editor(played.environ) as one:
        await one.ready()
        one.open(uri, "Sort the list\nof names.\n", "markdown")
        with pytest.raises(JsonRpcException):
            await proposed(one, (0, 3), uri=uri)
        assert await one.command("peft-daemon.propose", target((0, 0), (1, 9), uri)) is None, "the model had none"
        assert "no code" in one.client.messages[-1].message
        (prompt,) = played.model.asked
        assert "Sort the list of names." in prompt
        assert "python" in prompt
        assert "markdown" not in prompt


@pytest.mark.parametrize(
    ("language", "comment"), [("css", "/* center the title */"), ("html", "<!-- center the title -->"), ("abc", "")]
)
async def test_in_any_language_the_model_sees_the_file_around_a_selected_sentence(
    played: Played, language: str, comment: str
) -> None:
    text = "above the sentence\ncenter the title\nbelow it\n"
    seen = f"{comment or 'center the title'}\n"
    played.model.answers({f"above the sentence\n{seen}": "done"})
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, text, language)
        proposal = await proposed(one, (1, 0), (1, len("center the title")))
        assert taken(text, proposal) == "above the sentence\ndone\nbelow it\n"
        (prompt,) = played.model.asked
        assert "below it" in prompt


@pytest.mark.parametrize(
    ("where", "message"),
    [(((0, 0), (0, 0)), "select a sentence"), (((2, 0), (2, 2500)), "2499 characters"), (((1, 0), (1, 0)), "select")],
)
async def test_where_nothing_asks_for_code_the_user_is_told(
    played: Played, where: tuple[tuple[int, int], tuple[int, int]], message: str
) -> None:
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, f"x = 1\n\n{'word ' * 500}\n")
        with pytest.raises(JsonRpcException, match=message) as failure:
            await proposed(one, *where)
        assert failure.value.code == types.LSPErrorCodes.RequestFailed
        with pytest.raises(JsonRpcException, match="not open"):
            await proposed(one, *where, uri="file:///project/other.py")
        with pytest.raises(JsonRpcInvalidParams, match="line"):
            await one.command("peft-daemon.propose", target((-1, 0)))
        assert played.model.asked == []


async def test_a_document_that_was_edited_meanwhile_gets_no_proposal(played: Played) -> None:
    played.model.answers({"\n": "x = 1"})
    played.model.hold()
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, "# set x to one\n")
        asked = asyncio.create_task(one.command("peft-daemon.propose", target((0, 3))))
        await one.status(lambda status: status["state"] == "thinking")
        one.edit(URI, (0, 0), (0, 0), "\n")
        await one.inline("file:///project/none.py", 0, 0)  # by its answer the edit has arrived
        played.model.let_go()
        assert await asked is None
        assert "edited meanwhile" in one.client.messages[-1].message


async def test_it_shows_progress_and_can_be_cancelled(played: Played) -> None:
    played.model.hold()
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, "# set x to one\n")
        params = types.ExecuteCommandParams("peft-daemon.propose", [target((0, 3))], work_done_token="bar")
        asked = asyncio.create_task(
            one.client.protocol.send_request_async(types.WORKSPACE_EXECUTE_COMMAND, params, msg_id="one")
        )
        await one.status(lambda status: status["state"] == "thinking")
        one.client.cancel_request(types.CancelParams("one"))
        with pytest.raises(JsonRpcRequestCancelled):
            await asked
        await one.status(lambda status: status == one.statuses[-1] and status["state"] == "idle")
        reports = one.client.progress_reports["bar"]
        assert isinstance(reports[0], types.WorkDoneProgressBegin)
        assert isinstance(reports[-1], types.WorkDoneProgressEnd)
