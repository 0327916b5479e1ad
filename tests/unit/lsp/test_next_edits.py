"""Next edits as an editor gets them: where they go, what is dropped, when the daemon is asked. The daemon is played."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsprotocol import types

from fakes.fake_editor import FakeEditor
from peft_core.api_types import (
    CompleteRequest,
    CompleteResponse,
    Eagerness,
    FeedbackRequest,
    FinishReason,
    Outcome,
    Task,
)
from peft_core.code.edits import LineChange, join_lines, split_lines
from peft_core.code.positions import Encoding
from peft_core.next_edit_types import EditSilence, NextEditRequest, NextEditResponse, SuggestedEdit
from peft_lsp.documents import OpenDocument
from peft_lsp.handlers import notifications
from peft_lsp.handlers.text_document_inline_completion import inline_completion
from peft_lsp.handlers.text_document_inline_edit import inline_edit
from peft_lsp.handlers.workspace_execute_command import accepted
from peft_lsp.next_edits import PAUSE_IN_WORD_S, PAUSE_S, pause_before, placed_edit
from peft_lsp.session import Session

URI = "file:///project/demo.py"
TEXT = "def f(count):\n    return count\n"
EDIT = SuggestedEdit(start=1, old="    return count\n", new="    return total\n", why="used here")


class Daemon:
    """What a daemon would answer, and what it was asked."""

    def __init__(self, edit: SuggestedEdit | None = EDIT) -> None:
        self.edit = edit
        self.completion = ""
        self.asked: list[NextEditRequest] = []
        self.records: list[FeedbackRequest] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.may_complete = asyncio.Event()
        self.may_complete.set()

    async def next_edit(self, request: NextEditRequest) -> NextEditResponse:
        self.asked.append(request)
        await self.may_answer.wait()
        silence = None if self.edit else EditSilence.UNCHANGED
        return NextEditResponse(id=f"edit-{len(self.asked)}", edit=self.edit, silence=silence, model="played")

    async def complete(self, _request: CompleteRequest, _on_unused: object) -> CompleteResponse:
        await self.may_complete.wait()
        return CompleteResponse(
            id="fill",
            text=self.completion,
            finish_reason=FinishReason.STOP,
            task=Task.FILL,
            model="played",
            adapter=None,
        )

    async def record(self, feedback: FeedbackRequest) -> None:
        self.records.append(feedback)


def session_with(daemon: Daemon, settings: dict[str, Any] | None = None, text: str = TEXT) -> Session:
    """A session with one document, whose parameter was just renamed to ``total``."""
    given_settings = {"nextEdits": "on", **(settings or {})}
    session = Session(
        FakeEditor(given_settings).client,
        encoding=Encoding.UTF16,
        options=given_settings,
        folders=["file:///project"],
        purpose="fill",
    )
    for name in ("next_edit", "complete", "record"):
        setattr(session.daemon, name, getattr(daemon, name))
    notifications.did_open(session, types.DidOpenTextDocumentParams(types.TextDocumentItem(URI, "python", 1, text)))
    type_over(session, 2, (0, 6), (0, 11), "total")
    return session


def type_over(session: Session, version: int, start: tuple[int, int], end: tuple[int, int], text: str) -> None:
    span = types.Range(types.Position(*start), types.Position(*end))
    change = types.TextDocumentContentChangePartial(span, text)
    document = types.VersionedTextDocumentIdentifier(version, URI)
    notifications.did_change(session, types.DidChangeTextDocumentParams(document, [change]))


def params(version: int | None = 2, line: int = 0, character: int = 11, trigger: int | None = 1) -> Any:
    return SimpleNamespace(
        textDocument=SimpleNamespace(uri=URI, version=version),
        position=SimpleNamespace(line=line, character=character),
        context=SimpleNamespace(triggerKind=trigger),
    )


async def ask(session: Session, **options: Any) -> list[dict[str, Any]]:
    answer = await inline_edit(session, params(**options))
    edits: list[dict[str, Any]] = answer["edits"]
    return edits


async def test_an_edit_comes_with_its_range_text_version_and_command() -> None:
    daemon = Daemon()
    (edit,) = await ask(session_with(daemon))
    assert edit == {
        "text": "    return total\n",
        "textDocument": {"uri": URI, "version": 2},
        "range": {"start": {"line": 1, "character": 0}, "end": {"line": 2, "character": 0}},
        "command": {"title": "accepted", "command": "peft-daemon.accepted", "arguments": ["edit-1"]},
    }
    (asked,) = daemon.asked
    assert (asked.path, asked.workspace, asked.line, asked.column) == ("/project/demo.py", "/project", 0, 11)
    assert [(each.path, each.start, each.old, each.new) for each in asked.edits] == [
        ("/project/demo.py", 0, "def f(count):\n", "def f(total):\n")
    ]
    assert asked.text == "def f(total):\n    return count\n"


async def test_line_ends_are_those_of_the_document() -> None:
    (edit,) = await ask(session_with(Daemon(), text=TEXT.replace("\n", "\r\n")))
    assert edit["text"] == "    return total\r\n"


@pytest.mark.parametrize(
    "settings",
    [
        {"nextEdits": "off"},
        {"enabled": False},
        {"disabledLanguages": ["python"]},
        {"disabledFiles": ["demo.*"]},
    ],
)
async def test_where_they_are_off_the_daemon_is_not_asked_and_nothing_is_kept(settings: dict[str, Any]) -> None:
    daemon = Daemon()
    session = session_with(daemon, settings)
    assert await ask(session) == []
    assert daemon.asked == []
    assert session.next_edits.history.entries == ()


async def test_without_a_change_the_daemon_is_not_asked() -> None:
    daemon = Daemon()
    session = session_with(daemon)
    session.next_edits.history.forget(URI)
    assert await ask(session) == []
    assert daemon.asked == []


@pytest.mark.parametrize("eagerness", ["low", "all"])
async def test_how_sure_it_must_be_is_passed_on_unless_it_was_asked_for_by_hand(eagerness: str) -> None:
    daemon = Daemon()
    session = session_with(daemon, {"eagerness": eagerness})
    await ask(session, trigger=2)
    await ask(session, trigger=None)
    await ask(session, trigger=1)
    automatic = None if eagerness == "all" else Eagerness(eagerness)
    assert [each.eagerness for each in daemon.asked] == [automatic, automatic, None]


async def test_a_request_of_an_older_text_and_an_answer_to_one_are_dropped() -> None:
    daemon = Daemon()
    session = session_with(daemon)
    assert await ask(session, version=1) == []
    daemon.may_answer.clear()
    asking = asyncio.create_task(ask(session))
    while not daemon.asked:
        await asyncio.sleep(0)
    type_over(session, 3, (0, 0), (0, 0), "a")
    daemon.may_answer.set()
    assert await asking == []


async def test_an_edit_of_other_lines_than_there_are_is_dropped() -> None:
    for edit in (
        msgspec.structs.replace(EDIT, old="    return Count\n"),
        msgspec.structs.replace(EDIT, start=2),
        msgspec.structs.replace(EDIT, start=9, old=""),
        msgspec.structs.replace(EDIT, new=EDIT.old),
    ):
        assert await ask(session_with(Daemon(edit))) == []


async def test_an_automatic_request_waits_for_a_pause_which_a_newer_one_ends() -> None:
    daemon = Daemon()
    session = session_with(daemon)
    older = asyncio.create_task(ask(session, trigger=2))
    while not session.debounce._waiting:
        await asyncio.sleep(0)
    newer = asyncio.create_task(ask(session, trigger=2))
    assert await older == []
    assert len(await newer) == 1
    assert len(daemon.asked) == 1


async def test_it_waits_for_a_completion_of_the_same_document() -> None:
    daemon = Daemon()
    session = session_with(daemon)
    daemon.may_complete.clear()
    context = types.InlineCompletionContext(types.InlineCompletionTriggerKind.Automatic)
    place = types.InlineCompletionParams(context, types.TextDocumentIdentifier(URI), types.Position(0, 13))
    completing = asyncio.create_task(inline_completion(session, place))
    while URI not in session.next_edits._completed:
        await asyncio.sleep(0)
    asking = asyncio.create_task(ask(session))
    for _ in range(10):
        await asyncio.sleep(0)
    assert daemon.asked == []
    daemon.may_complete.set()
    await completing
    assert len(await asking) == 1


async def test_what_was_refused_is_not_shown_there_again_but_elsewhere_and_by_hand() -> None:
    daemon = Daemon()
    session = session_with(daemon)
    assert len(await ask(session, trigger=2)) == 1
    refused = SimpleNamespace(uri=URI, position=SimpleNamespace(line=1, character=0), nextEdit=True)
    notifications.dismissed(session, refused)
    assert await ask(session, trigger=2) == []
    assert len(await ask(session, trigger=1)) == 1
    daemon.edit = msgspec.structs.replace(EDIT, new="    return total + 1\n")
    assert len(await ask(session, trigger=2)) == 1, "another edit of the same lines"
    type_over(session, 3, (0, 0), (0, 0), "# new\n")
    daemon.edit = msgspec.structs.replace(EDIT, start=2)
    assert await ask(session, version=3, trigger=2) == [], "its place has moved"


async def test_what_becomes_of_it_is_recorded_as_that_of_a_next_edit() -> None:
    daemon = Daemon()
    session = session_with(daemon)
    (edit,) = await ask(session)
    type_over(session, 3, (1, 0), (2, 0), edit["text"])
    await accepted(session, types.ExecuteCommandParams("", edit["command"]["arguments"]))
    await session.shut_down()
    (record,) = daemon.records
    assert (record.offer, record.outcome, record.next_edit) == ("edit-1", Outcome.ACCEPTED, True)
    assert record.kept == len(edit["text"])


async def test_one_that_is_refused_is_recorded_as_rejected() -> None:
    daemon = Daemon()
    session = session_with(daemon)
    await ask(session)
    refused = SimpleNamespace(uri=URI, position=SimpleNamespace(line=1, character=0), nextEdit=True)
    notifications.dismissed(session, refused)
    await session.shut_down()
    assert [each.outcome for each in daemon.records] == [Outcome.REJECTED]


async def test_unreadable_parameters_are_answered_with_nothing() -> None:
    session = session_with(Daemon())
    for wrong in (SimpleNamespace(), params(version="x"), params(line="x")):  # type: ignore[arg-type]
        assert await inline_edit(session, wrong) == {"edits": []}


async def complete_at(session: Session, line: int, character: int) -> list[types.InlineCompletionItem]:
    context = types.InlineCompletionContext(types.InlineCompletionTriggerKind.Automatic)
    place = types.InlineCompletionParams(context, types.TextDocumentIdentifier(URI), types.Position(line, character))
    return list((await inline_completion(session, place)).items)


async def test_where_there_is_no_completion_it_is_one_if_it_changes_the_rest_of_the_line_only() -> None:
    daemon = Daemon(msgspec.structs.replace(EDIT, new="    return count + total\n"))
    session = session_with(daemon)
    (item,) = await complete_at(session, 1, 16)
    assert item.insert_text == " + total"
    assert item.range == types.Range(types.Position(1, 16), types.Position(1, 16))
    assert await complete_at(session, 0, 13) == [], "it changes another line"
    daemon.edit = SuggestedEdit(start=1, old="", new="    # sum\n", why="")
    (below,) = await complete_at(session, 0, 13)
    assert below.insert_text == "\n    # sum"


async def test_a_completion_goes_first_and_an_editor_that_asks_for_edits_gets_no_such_ones() -> None:
    daemon = Daemon()
    session = session_with(daemon)
    daemon.completion = "  # text"
    (item,) = await complete_at(session, 1, 16)
    assert item.insert_text == "  # text"
    assert daemon.asked == []
    await ask(session)
    daemon.completion = ""
    daemon.edit = msgspec.structs.replace(EDIT, new="    return count + total\n")
    assert await complete_at(session, 1, 16) == []
    assert len(daemon.asked) == 1


LINES = st.lists(st.text(st.sampled_from("ab "), max_size=3), max_size=5)


@given(LINES, LINES, st.integers(0, 5), st.integers(0, 5), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_an_edit_of_whole_lines_changes_them_wherever_they_are(
    before: list[str], new: list[str], start: int, length: int, ended: bool, eol: str
) -> None:
    text = "\n".join(before) + ("\n" if ended else "")
    lines = split_lines(text)
    start = min(start, len(lines))
    change = LineChange(start, lines[start : start + length], tuple(new))
    document = OpenDocument(URI, "python", 1, text.replace("\n", eol))
    edit = SuggestedEdit(start=start, old=join_lines(change.old), new=join_lines(new), why="")
    place = placed_edit(document, edit)
    assert place is not None
    first, end, inserted = place
    span = types.Range(types.Position(*first), types.Position(*end))
    document.change([types.TextDocumentContentChangePartial(span, inserted)], 2, Encoding.UTF32)
    after = document.text.replace(eol, "\n")
    assert split_lines(after) == change.apply(lines)


@pytest.mark.parametrize(
    ("line", "column", "expected"),
    [(0, 11, PAUSE_IN_WORD_S), (0, 10, PAUSE_S), (0, 12, PAUSE_S), (1, 0, PAUSE_S), (1, 16, PAUSE_IN_WORD_S)],
)
def test_behind_a_word_the_pause_is_longer(line: int, column: int, expected: float) -> None:
    document = OpenDocument(URI, "python", 1, TEXT)
    assert pause_before(document.snapshot(types.Position(line, column), Encoding.UTF16)) == expected
