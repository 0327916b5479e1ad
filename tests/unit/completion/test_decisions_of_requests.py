"""The daemon notes of each request which part decided what became of it, and nothing of the code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fakes.scripted_engines import PacedEngine, Piece
from peft_core.api_types import (
    CompleteRequest,
    CompleteResponse,
    Eagerness,
    FeedbackRequest,
    FinishReason,
    Outcome,
    Scope,
)
from peft_core.decisions import MAX_DECISIONS, Decider, RequestDecision, WhyAnswer, explain, why_text
from peft_core.errors import EngineFailed, NotFound
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.completion.eagerness import LEAST
from peft_daemon.completion.job import RawRequest
from peft_daemon.completion.service import CompletionService
from peft_daemon.models.catalogue import PromptFormats
from support.one_model import one_model_service
from support.tiny_entry import tiny_entry

SECRET = "sk" + "_live_4242abcd4242abcd"
WRITTEN: dict[str, list[Piece]] = {
    "x = ": ["unmistakable"],
    "password = ": [f'"{SECRET}"\n'],
    "nothing = ": [],
    "blank = ": ["   \n"],
    "guess = ": [("wild", -9.0)],
    "half = ": [("self", -0.01), (".guess", -9.0)],
    "mean = ": [("total(v)\nreturn sum((x -", -0.01), (" mean)", -0.01)],
    "return ": [("sum(v)", -0.01)],
}


def write(prompt: str) -> list[Piece]:
    return next((pieces for end, pieces in WRITTEN.items() if prompt.endswith(end)), ["y"])


@pytest.fixture
def engine() -> PacedEngine:
    paced = PacedEngine(write)
    paced.go.set()
    return paced


@pytest.fixture
async def service(engine: PacedEngine, tmp_path: Path) -> AsyncIterator[CompletionService]:
    formats = PromptFormats(fill="qwen-fim-v1", intent="qwen-chat-v1")
    entry = msgspec.structs.replace(tiny_entry(b""), context_tokens=2048, prompt_formats=formats)
    served = one_model_service(entry, engine, AdapterRegistry(tmp_path / "adapters"))
    yield served
    await served.close()


def request(source: str, **fields: Any) -> CompleteRequest:
    prefix, _, suffix = source.partition("‸")
    return CompleteRequest(
        prefix=prefix, suffix=suffix, path="/home/me/shop/src/a.py", workspace="/home/me/shop", line=3, **fields
    )


async def answered(service: CompletionService, asked: CompleteRequest) -> CompleteResponse:
    async with aclosing(service.complete(asked)) as items:
        return [item async for item in items if isinstance(item, CompleteResponse)][-1]


def last(service: CompletionService) -> RequestDecision:
    return service.decisions.all[-1]


@pytest.mark.parametrize(
    ("source", "decider", "detail"),
    [
        ("a = 1\nx = ‸", Decider.MODEL, ""),
        ("x = ‸name", Decider.IN_WORD, ""),
        (" \n‸ ", Decider.NOTHING_AROUND, ""),
        (f'key = "{SECRET[:-4]}‸abcd"', Decider.IN_WORD, ""),
        (f'key = "{SECRET}‸"', Decider.IN_SECRET, ""),
        ("nothing = ‸", Decider.NOTHING_WRITTEN, ""),
        ("blank = ‸", Decider.NOTHING_WRITTEN, ""),
        ("password = ‸", Decider.POSTPROCESSING, "drop_secrets"),
    ],
)
async def test_the_part_that_decided_is_noted(
    source: str, decider: Decider, detail: str, service: CompletionService
) -> None:
    response = await answered(service, request(source))
    noted = last(service)
    assert (noted.decider, noted.detail) == (decider, detail)
    assert noted.id == response.id
    assert noted.characters == len(response.text)
    assert (noted.document, noted.line) == ("src/a.py", 3)
    assert noted.column == len(source.partition("‸")[0].rpartition("\n")[2]) + 1


async def test_what_the_model_is_too_unsure_of_is_a_silence_with_figures(service: CompletionService) -> None:
    response = await answered(service, request("guess = ‸", automatic=True, eagerness=Eagerness.MEDIUM))
    assert (response.text, response.finish_reason) == ("", FinishReason.EMPTY)
    noted = last(service)
    assert noted.decider is Decider.UNSURE
    assert noted.detail == f"right with 0%, shown from {LEAST[Eagerness.MEDIUM]:.0%} on (medium)"
    assert "eagerness" in explain(noted).fix
    by_hand = await answered(service, request("guess = ‸"))
    assert by_hand.text == "wild"


@pytest.mark.parametrize(
    ("source", "decider"),
    [
        ("a = 1  # y‸", Decider.IN_COMMENT),
        ('a = "y‸"', Decider.IN_STRING),
        ('"""y\n‸\n"""', Decider.IN_STRING),
        ('a = f"{y‸}"', Decider.MODEL),
        ("# sort the rows by their first column‸", Decider.MODEL),
        ("a = ‸", Decider.MODEL),
    ],
)
async def test_nothing_begins_in_scopes_that_are_to_be_silent(
    source: str, decider: Decider, service: CompletionService
) -> None:
    await answered(service, request(source, silent_in=list(Scope)))
    assert last(service).decider is decider
    await answered(service, request(source))
    assert last(service).decider is Decider.MODEL, "without the wish it is answered"


async def test_a_suggestion_says_how_sure_the_model_is_of_it_and_of_what_was_left_out(
    service: CompletionService,
) -> None:
    response = await answered(service, request("half = ‸", eagerness=Eagerness.LOW))
    assert response.text == "self"
    assert response.confidence is not None
    noted = last(service)
    assert noted.confidence == response.confidence
    assert noted.doubt is not None
    assert f"{response.confidence:.0%} sure, what would follow 0%" in why_text(WhyAnswer(shown=explain(noted)))


async def test_what_was_cut_off_when_an_earlier_request_had_enough_is_no_suggestion_below(
    engine: PacedEngine, service: CompletionService
) -> None:
    typing: dict[str, Any] = {"automatic": True, "eagerness": Eagerness.MEDIUM, "document": "d"}
    engine._at_once = 1
    engine.go.clear()
    first = await answered(service, request("mean = ‸", **typing))
    assert first.text == "total(v)"
    engine.go.set()
    below = await answered(service, request("mean = total(v)\nreturn ‸", **typing))
    assert below.text == "sum(v)"


async def test_auto_learns_from_what_was_taken(service: CompletionService) -> None:
    for number in range(100):
        service.eagerness.note(
            FeedbackRequest(
                offer=str(number),
                outcome=Outcome.REJECTED,
                language="python",
                suggestion="",
                shown=9,
                model="m",
                confidence=0.9,
            )
        )
    auto = await answered(service, request("half = ‸", eagerness=Eagerness.AUTO))
    assert last(service).decider is Decider.MODEL, auto
    await answered(service, request("guess = ‸", eagerness=Eagerness.AUTO))
    least = service.eagerness.least(Eagerness.AUTO)
    assert least > LEAST[Eagerness.MEDIUM]
    assert last(service).detail == f"right with 0%, shown from {least:.0%} on (auto, learned from 100 outcomes)"


async def test_a_file_with_secrets_and_prose_are_told_apart(service: CompletionService) -> None:
    await answered(service, CompleteRequest(prefix="x", path="/p/.env"))
    assert last(service).decider is Decider.SECRET_FILE
    assert "hold secrets" in last(service).detail
    await answered(service, CompleteRequest(prefix="x", language="markdown"))
    assert last(service).decider is Decider.LANGUAGE


async def test_an_answer_without_the_model_says_where_it_came_from(service: CompletionService) -> None:
    await answered(service, request("x = ‸", document="d"))
    await answered(service, request("x = unm‸", document="d"))
    assert last(service).decider is Decider.KEPT


async def test_a_newer_request_is_noted_with_how_far_the_older_one_was(
    service: CompletionService, engine: PacedEngine
) -> None:
    engine.go.clear()
    engine._at_once = 0
    older = asyncio.create_task(answered(service, request("x = ‸", document="d")))
    await engine.waiting.wait()
    newer = asyncio.create_task(answered(service, request("z = ‸", document="d")))
    assert (await older).finish_reason is FinishReason.SUPERSEDED
    assert (last(service).decider, last(service).detail) == (Decider.NEWER_REQUEST, "while the model read the prompt")
    engine.go.set()
    await newer
    assert last(service).decider is Decider.MODEL


async def test_a_client_that_hangs_up_is_noted_once_and_an_answered_one_is_not(
    service: CompletionService, engine: PacedEngine
) -> None:
    engine.go.clear()
    engine._at_once = 0
    asking = asyncio.create_task(answered(service, request("x = ‸")))
    await engine.waiting.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert [each.decider for each in service.decisions.all] == [Decider.CANCELLED]
    engine.go.set()
    async with aclosing(service.complete(request("x = ‸"))) as items:
        async for item in items:
            if isinstance(item, CompleteResponse):
                break
    assert [each.decider for each in service.decisions.all] == [Decider.CANCELLED, Decider.MODEL]


async def test_an_engine_that_fails_and_a_request_that_cannot_be_served_say_so(
    service: CompletionService, engine: PacedEngine
) -> None:
    engine.fails = True
    with pytest.raises(EngineFailed):
        await answered(service, request("x = ‸"))
    assert (last(service).decider, last(service).detail) == (Decider.ENGINE, "the engine died")
    with pytest.raises(NotFound):
        await answered(service, request("x = ‸", adapter="nobody"))
    assert last(service).decider is Decider.REFUSED
    assert "nobody" in last(service).detail


async def test_a_request_in_another_tool_s_protocol_is_noted_too(service: CompletionService) -> None:
    model = service.distinct_models[0]
    asked = RawRequest(prefix="x = ", suffix="\n", max_tokens=8, path="/home/me/a.py")
    async with aclosing(service.raw(asked, model=model, route="infill")) as chunks:
        async for _ in chunks:
            pass
    noted = last(service)
    assert (noted.decider, noted.route, noted.document) == (Decider.MODEL, "infill", "a.py")
    assert noted.characters == len("unmistakable")


async def test_no_code_is_noted_and_not_more_than_so_many(service: CompletionService) -> None:
    for number in range(MAX_DECISIONS + 5):
        await answered(service, request(f"planted_{number} = 1\nx = ‸name"))
    await answered(service, request("planted = 1\nx = ‸"))
    noted = msgspec.json.encode(service.decisions.all).decode()
    assert "planted" not in noted
    assert "unmistakable" not in noted
    assert "/home/me" not in noted
    assert len(service.decisions.all) == MAX_DECISIONS
