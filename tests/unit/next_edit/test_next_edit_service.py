"""The search for a next edit: what is shown, why nothing is, and who goes first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from fakes.scripted_engines import ScriptedEngine
from peft_core.api_types import CompleteRequest, CompleteResponse, Eagerness, FinishReason, Task
from peft_core.errors import InvalidInput
from peft_core.next_edit_types import EditSilence, NextEditRequest, PastEdit
from peft_core.status_types import LLAMACPP
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.completion.service import CompletionService
from peft_daemon.engines.base import GenerationChunk, GenerationRequest, TokenLogprob
from peft_daemon.next_edit.service import NextEditService
from support.one_model import one_model_service
from support.tiny_entry import tiny_entry

TEXT = "def area(width, unit):\n    return width\n\narea(2)\n"
ANSWER = 'def area(width, unit):\n    return width\n\narea(2, "cm")\n'
EDITS = [PastEdit("a.py", 0, "def area(width):\n", "def area(width, unit):\n")]


class Judged(ScriptedEngine):
    """Says how likely each line of its answer is."""

    id = LLAMACPP

    def __init__(self, text: str, logprob: float = -0.01, reason: FinishReason = FinishReason.STOP) -> None:
        super().__init__(text.splitlines(keepends=True), reason)
        self._logprob = logprob
        self.asked: list[GenerationRequest] = []

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        self.asked.append(request)
        async for chunk in super().generate(request):
            known = (TokenLogprob(chunk.text, self._logprob),) if chunk.text else ()
            yield GenerationChunk(chunk.text, known, chunk.timings, chunk.reason)


class Waiting(Judged):
    """Writes nothing before it may, to an edit."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.began, self.may_write = asyncio.Event(), asyncio.Event()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        if any("current/" in each.text for each in request.prompt):
            self.began.set()
            await self.may_write.wait()
        async for chunk in super().generate(request):
            yield chunk


class Refusing(Judged):
    """Has no room for the prompt."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        raise InvalidInput("the prompt does not fit")
        yield


def services(tmp_path: Path, engine: ScriptedEngine) -> tuple[CompletionService, NextEditService]:
    service = one_model_service(tiny_entry(b""), engine, AdapterRegistry(tmp_path))
    return service, NextEditService(service)


def asked(*, edits: Sequence[PastEdit] = EDITS, **fields: object) -> NextEditRequest:
    values = {"text": TEXT, "line": 0, "column": 22, "path": "a.py", "adapter": "base", **fields}
    return NextEditRequest(edits=list(edits), **values)  # type: ignore[arg-type]


async def test_what_the_model_changes_is_the_edit(tmp_path: Path) -> None:
    engine = Judged(ANSWER)
    _, edits = services(tmp_path, engine)
    answer = await edits.suggest(asked())
    assert answer.edit is not None and answer.silence is None
    assert (answer.edit.start, answer.edit.old, answer.edit.new) == (3, "area(2)\n", 'area(2, "cm")\n')
    assert answer.confidence is not None and answer.confidence > 0.5
    (request,) = engine.asked
    assert request.confidence and "<|file_sep|>" in request.stop


@pytest.mark.parametrize(
    ("engine", "fields", "expected"),
    [
        (Judged(ANSWER, -4.0), {"eagerness": Eagerness.MEDIUM}, EditSilence.UNSURE),
        (Judged(TEXT), {}, EditSilence.UNCHANGED),
        (Judged(TEXT.replace(", unit", "")), {}, EditSilence.REVERSAL),
        (Judged(ANSWER, reason=FinishReason.LENGTH), {}, EditSilence.BROKEN),
        (Refusing(""), {}, EditSilence.BROKEN),
        (Judged(ANSWER), {"edits": []}, EditSilence.NO_HISTORY),
        (Judged(ANSWER), {"adapter": None}, EditSilence.NO_FORMAT),
        (Judged(ANSWER), {"path": "/home/me/.env"}, EditSilence.OFF),
    ],
)
async def test_a_silence_says_why(
    tmp_path: Path, engine: Judged, fields: dict[str, object], expected: EditSilence
) -> None:
    _, edits = services(tmp_path, engine)
    answer = await edits.suggest(asked(**fields))  # type: ignore[arg-type]
    assert (answer.edit, answer.silence) == (None, expected)


async def test_an_unsure_edit_is_shown_to_who_asks_for_all(tmp_path: Path) -> None:
    _, edits = services(tmp_path, Judged(ANSWER, -4.0))
    assert (await edits.suggest(asked())).edit is not None


async def test_a_use_of_a_renamed_name_needs_no_model(tmp_path: Path) -> None:
    engine = Judged("")
    _, edits = services(tmp_path, engine)
    renamed = [PastEdit("a.py", 0, "def size(width, unit):\n", "def area(width, unit):\n")]
    answer = await edits.suggest(asked(text=TEXT.replace("area(2)", "size(2)"), edits=renamed, adapter=None))
    assert answer.edit is not None and answer.edit.new == "area(2)\n"
    assert engine.asked == []


async def test_a_completion_goes_first_and_ends_the_search(tmp_path: Path) -> None:
    engine = Waiting(ANSWER)
    service, edits = services(tmp_path, engine)
    search = asyncio.create_task(edits.suggest(asked()))
    await engine.began.wait()
    parts = [part async for part in service.complete(CompleteRequest(prefix="x = ", task=Task.FILL))]
    assert isinstance(parts[-1], CompleteResponse)
    assert (await search).silence is EditSilence.SUPERSEDED


async def test_the_newest_request_of_a_document_ends_the_one_before_it(tmp_path: Path) -> None:
    engine = Waiting(ANSWER)
    _, edits = services(tmp_path, engine)
    older = asyncio.create_task(edits.suggest(asked(document="d")))
    await engine.began.wait()
    engine.may_write.set()
    newer = asyncio.create_task(edits.suggest(asked(document="d")))
    assert (await older).silence is EditSilence.SUPERSEDED
    assert (await newer).edit is not None


async def test_the_time_of_a_request_ends_the_search(tmp_path: Path) -> None:
    _, edits = services(tmp_path, Waiting(ANSWER))
    assert (await edits.suggest(asked(time_budget_ms=1))).silence is EditSilence.TIMEOUT
