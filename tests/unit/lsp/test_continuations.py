"""What was shown in part is asked for as a whole, once, and only while the document is as it was.

The daemon is played: the test says when it answers.
"""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from lsprotocol import types

from peft_core.api_types import CompleteRequest, CompleteResponse, FinishReason, Task
from peft_core.code.positions import Encoding
from peft_lsp.documents import DocumentSnapshot, OpenDocuments
from peft_lsp.prefetch import Continuations

URI = "file:///project/demo.py"
PART = CompleteResponse(
    id="1", text="sum(", finish_reason=FinishReason.STOP, task=Task.FILL, model="m", adapter=None, more=True
)
WHOLE = msgspec.structs.replace(PART, id="2", text="sum(values)", more=False)


class Scene:
    """A document, and follow-ups whose answers the test gives."""

    def __init__(self) -> None:
        self.documents = OpenDocuments(Encoding.UTF16)
        self.documents.open(types.TextDocumentItem(URI, "python", 1, "x = "))
        self.asked: list[CompleteRequest] = []
        self.answer: asyncio.Future[CompleteResponse | None] = asyncio.get_running_loop().create_future()
        self.told: list[DocumentSnapshot] = []
        self.continuations = Continuations(self.documents, self.ask, self.told.append)
        snapshot = self.documents.snapshot(URI, types.Position(0, 4))
        assert snapshot is not None
        self.snapshot = snapshot
        self.request = CompleteRequest(prefix=snapshot.prefix, automatic=True, show_after_ms=300)

    async def ask(self, request: CompleteRequest) -> CompleteResponse | None:
        self.asked.append(request)
        return await self.answer

    async def go(self, answer: CompleteResponse | None) -> None:
        self.continuations.follow(self.snapshot, self.request, PART)
        await asyncio.sleep(0)
        self.answer.set_result(answer)
        await self.settled()

    async def settled(self) -> None:
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})


async def test_the_whole_is_asked_for_without_hurry_and_the_editor_told() -> None:
    scene = Scene()
    await scene.go(WHOLE)
    assert scene.asked == [msgspec.structs.replace(scene.request, automatic=False, show_after_ms=None)]
    assert scene.told == [scene.snapshot]


async def test_it_is_given_out_once_to_the_same_request_whoever_made_it() -> None:
    scene = Scene()
    await scene.go(WHOLE)
    by_hand = msgspec.structs.replace(scene.request, automatic=False)
    assert scene.continuations.take(scene.snapshot, by_hand) == WHOLE
    assert scene.continuations.take(scene.snapshot, by_hand) is None


async def test_another_request_does_not_get_it_and_ends_it() -> None:
    scene = Scene()
    await scene.go(WHOLE)
    assert scene.continuations.take(scene.snapshot, msgspec.structs.replace(scene.request, prefix="y = ")) is None
    assert scene.continuations.take(scene.snapshot, scene.request) is None


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(None, id="the daemon is gone"),
        pytest.param(msgspec.structs.replace(WHOLE, text="", finish_reason=FinishReason.SUPERSEDED), id="superseded"),
        pytest.param(msgspec.structs.replace(PART, more=False), id="nothing more"),
    ],
)
async def test_without_more_to_show_nobody_is_told(answer: CompleteResponse | None) -> None:
    scene = Scene()
    await scene.go(answer)
    assert scene.told == []
    assert scene.continuations.take(scene.snapshot, scene.request) is None


async def test_a_document_that_was_edited_meanwhile_is_not_told_of() -> None:
    scene = Scene()
    change = types.TextDocumentContentChangeWholeDocument("y = ")
    identity = types.VersionedTextDocumentIdentifier(2, URI)
    scene.documents.change(types.DidChangeTextDocumentParams(identity, [change]))
    await scene.go(WHOLE)
    assert scene.told == []
    assert scene.continuations.take(scene.snapshot, scene.request) is None


async def test_stopping_ends_the_question_and_forgets_an_answer() -> None:
    scene = Scene()
    scene.continuations.follow(scene.snapshot, scene.request, PART)
    await asyncio.sleep(0)
    scene.continuations.stop(URI)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert scene.answer.cancelled()
    assert scene.told == []
    scene.answer = asyncio.get_running_loop().create_future()
    await scene.go(WHOLE)
    scene.continuations.stop(URI)
    assert scene.continuations.take(scene.snapshot, scene.request) is None


async def test_a_newer_follow_up_takes_the_place_of_the_older() -> None:
    scene = Scene()
    scene.continuations.follow(scene.snapshot, scene.request, PART)
    await asyncio.sleep(0)
    older, scene.answer = scene.answer, asyncio.get_running_loop().create_future()
    await scene.go(WHOLE)
    assert older.cancelled()
    assert scene.told == [scene.snapshot]
    assert scene.continuations.take(scene.snapshot, scene.request) == WHOLE


async def test_after_closing_nothing_runs_on() -> None:
    scene = Scene()
    scene.continuations.follow(scene.snapshot, scene.request, PART)
    await asyncio.sleep(0)
    scene.continuations.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
