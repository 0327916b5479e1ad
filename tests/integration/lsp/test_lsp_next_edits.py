"""Next edits: real server and real daemon, whose model is played; a word that was renamed needs no model."""

from __future__ import annotations

from peft_core.api_types import Outcome
from peft_daemon.feedback import FeedbackStore
from support.editor import Editor, editor
from support.played_daemon import Played

URI = "file:///project/demo.py"
TEXT = "def f(count):\n    x = 1\n    return count\n"


def rename(one: Editor) -> None:
    one.open(URI, TEXT)
    one.edit(URI, (0, 6), (0, 11), "")
    for at, letter in enumerate("total"):
        one.edit(URI, (0, 6 + at), (0, 6 + at), letter)


async def test_a_use_of_a_renamed_parameter_is_suggested_taken_and_recorded(played: Played) -> None:
    async with editor(played.environ, settings={"nextEdits": "on"}, folders=["file:///project"]) as one:
        await one.ready()
        rename(one)
        (edit,) = await one.next_edit(URI, 0, 11, automatic=True)
        assert edit["text"] == "    return total\n"
        assert edit["range"] == {"start": {"line": 2, "character": 0}, "end": {"line": 3, "character": 0}}
        one.client.protocol.notify("textDocument/didShowInlineEdit", {"item": {"command": edit["command"]}})
        one.edit(URI, (2, 0), (3, 0), edit["text"])
        await one.command(edit["command"]["command"], *edit["command"]["arguments"])
        assert await one.next_edit(URI, 2, 16, automatic=True) == []
        assert await one.leave() == 0
    (row,) = FeedbackStore(played.paths.feedback_file).rows()
    assert (row.record.outcome, row.record.next_edit) == (Outcome.ACCEPTED, True)


async def test_what_was_refused_does_not_come_back_unless_it_is_asked_for(played: Played) -> None:
    async with editor(played.environ, settings={"nextEdits": "on"}) as one:
        await one.ready()
        rename(one)
        assert await one.next_edit(URI, 0, 11, automatic=True)
        one.dismiss(URI, 2, 0, next_edit=True)
        assert await one.next_edit(URI, 0, 11, automatic=True) == []
        assert await one.next_edit(URI, 0, 11)


async def test_nothing_comes_where_they_are_off_which_they_are_by_default(played: Played) -> None:
    async with editor(played.environ) as one:
        await one.ready()
        rename(one)
        assert await one.next_edit(URI, 0, 11) == []
