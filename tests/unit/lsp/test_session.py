"""The session reads ahead only where completions are on, and lets only the newest request wait for a pause in typing.

The daemon is played.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from lsprotocol import types

from fakes.fake_editor import FakeEditor
from peft_core.api_types import CompleteRequest
from peft_core.code.positions import Encoding
from peft_lsp.handlers.notifications import cursor_moved
from peft_lsp.prefetch import HEAD_LINES
from peft_lsp.session import Debounce, Session

URI, OTHER = "file:///project/demo.py", "file:///project/other.py"

FOREVER = 1000.0


async def test_a_pause_passes() -> None:
    assert await Debounce().wait("a", 0.001)


async def test_a_newer_request_ends_an_older_pause_but_not_that_of_another_document() -> None:
    pauses = Debounce()
    older, other = (asyncio.create_task(pauses.wait(key, FOREVER)) for key in ("a", "b"))
    await asyncio.sleep(0)
    newer = asyncio.create_task(pauses.wait("a", 0.001))
    assert not await older
    assert await newer
    assert not other.done()
    other.cancel()


async def test_without_a_pause_nothing_is_awaited_and_an_older_one_still_ends() -> None:
    pauses = Debounce()
    older = asyncio.create_task(pauses.wait("a", FOREVER))
    await asyncio.sleep(0)
    straight = pauses.wait("a", 0)
    with pytest.raises(StopIteration) as end:
        straight.send(None)
    assert end.value.value is True
    assert not await older


async def test_a_cancelled_pause_leaves_nothing_behind() -> None:
    pauses = Debounce()
    one = asyncio.create_task(pauses.wait("a", FOREVER))
    await asyncio.sleep(0)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    assert await pauses.wait("a", 0.001)


def session_with(text: str, settings: dict[str, Any] | None = None) -> tuple[Session, list[CompleteRequest]]:
    """A session with one document, and the requests that its daemon was asked to read."""
    asked: list[CompleteRequest] = []

    async def note(request: CompleteRequest) -> bool:
        asked.append(request)
        return True

    client = FakeEditor(settings or {}).client
    session = Session(client, encoding=Encoding.UTF16, options=None, folders=["file:///project"], purpose="fill")
    session.daemon.warm = note  # type: ignore[method-assign]
    session.documents.open(types.TextDocumentItem(URI, "python", 1, text))
    return session, asked


async def test_what_is_read_ahead_is_the_request_that_a_completion_there_would_be() -> None:
    session, asked = session_with("a\nbc\n", {"adapter": "mine"})
    assert await session.warm_up(URI, (1, 2))
    (request,) = asked
    assert (request.prefix, request.suffix) == ("a\nbc", "\n")
    assert (request.adapter, request.document) == ("mine", f"{session.id}:fill:{URI}")
    assert request.workspace == "/project"


@pytest.mark.parametrize(("lines", "known"), [(3, 3), (HEAD_LINES + 100, HEAD_LINES)])
async def test_without_a_cursor_it_is_the_end_of_the_head(lines: int, known: int) -> None:
    session, asked = session_with("\n".join(["line"] * lines))
    assert await session.warm_up(URI, None)
    assert asked[0].prefix == "\n".join(["line"] * known)


async def test_inside_a_word_where_nothing_is_asked_for_it_is_the_end_of_the_line() -> None:
    session, asked = session_with("def total(a):\n    pass\n")
    for offset in (0, 2, 4, 9, 10, 13):
        assert await session.warm_up(URI, (0, offset))
    assert [len(request.prefix) for request in asked] == [13, 13, 13, 9, 13, 13]


async def test_a_position_that_is_no_more_is_the_end() -> None:
    session, asked = session_with("a\nbc")
    assert await session.warm_up(URI, (7, 7))
    assert asked[0].prefix == "a\nbc"


@pytest.mark.parametrize(
    ("text", "settings"),
    [("x = 1", {"enabled": False}), ("x = 1", {"disabledLanguages": ["python"]}), ("", {}), ("PK\0\1", {})],
)
async def test_nothing_is_read_where_nothing_will_be_asked(text: str, settings: dict[str, Any]) -> None:
    session, asked = session_with(text, settings)
    assert not await session.warm_up(URI, (0, 1))
    assert not await session.warm_up(OTHER, (0, 1))
    assert asked == []


async def test_the_editors_cursor_is_counted_as_the_editor_counts() -> None:
    session, _ = session_with("😀😀 x")
    cursor_moved(session, SimpleNamespace(uri=URI, position=SimpleNamespace(line=0, character=4)))
    assert session.prefetch.cursor_in(URI) == (0, 2)
    session.prefetch.close()


@pytest.mark.parametrize(
    "params",
    [
        None,
        SimpleNamespace(uri=URI),
        SimpleNamespace(uri=OTHER, position=SimpleNamespace(line=0, character=0)),
        SimpleNamespace(uri=3, position=SimpleNamespace(line=0, character=0)),
        SimpleNamespace(uri=URI, position=SimpleNamespace(line="0", character=0)),
    ],
)
async def test_a_cursor_that_cannot_be_read_or_is_nowhere_is_left_alone(params: object) -> None:
    session, _ = session_with("x")
    cursor_moved(session, params)
    assert session.prefetch.cursor_in(URI) is None
    assert session.prefetch.cursor_in(OTHER) is None
