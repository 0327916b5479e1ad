"""Requests of other tools' protocols fit the model's context, whatever length of answer their clients ask for."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from fakes.scripted_engines import ScriptedEngine
from peft_core.api_types import FinishReason, Task, Timings
from peft_core.errors import InvalidInput
from peft_core.status_types import LLAMACPP
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.completion import formats
from peft_daemon.completion.chat import ChatMessage, chat_format_of, chat_prompt
from peft_daemon.completion.job import RawRequest, build_raw
from peft_daemon.engines.base import GenerationChunk, GenerationRequest
from support.one_model import one_model_service
from support.tiny_entry import tiny_entry

CONTEXT_TOKENS = 512
QWEN = chat_format_of(formats.get("qwen-chat-v1"))
HI = chat_prompt([ChatMessage("user", "Hi")], QWEN)


async def built(**fields: object) -> GenerationRequest:
    asked = RawRequest(**fields)  # type: ignore[arg-type]
    hole_format = formats.get("qwen-fim-v1")
    return await build_raw(
        ScriptedEngine([]), asked, hole_format=hole_format, context_tokens=CONTEXT_TOKENS, step_tokens=16, adapter=None
    )


async def test_a_hole_keeps_half_of_the_context_for_what_stands_around_it() -> None:
    before = "x = 1\n" * 400
    longest = await built(prefix=before, suffix="\n", max_tokens=4096)
    assert longest.max_tokens == CONTEXT_TOKENS // 2
    assert len("".join(piece.text for piece in longest.prompt)) > 300
    assert (await built(prefix=before, suffix="\n", max_tokens=16)).max_tokens == 16
    assert (await built(prefix=before, suffix="\n", max_tokens=0)).max_tokens == 0


async def test_a_text_is_continued_as_it_stands() -> None:
    request = await built(prefix="<|fim_middle|> is a token", max_tokens=700)
    assert [(piece.text, piece.special) for piece in request.prompt] == [("<|fim_middle|> is a token", False)]
    assert request.max_tokens == 700


async def test_the_answer_to_a_chat_takes_what_the_messages_leave() -> None:
    unlimited = (await built(chat=HI, max_tokens=None)).max_tokens
    assert CONTEXT_TOKENS // 2 < unlimited < CONTEXT_TOKENS
    assert (await built(chat=HI, max_tokens=100_000)).max_tokens == unlimited
    assert (await built(chat=HI, max_tokens=7)).max_tokens == 7
    assert (await built(chat=HI, max_tokens=0)).max_tokens == 0


async def test_messages_that_do_not_fit_are_refused_with_both_numbers() -> None:
    with pytest.raises(InvalidInput, match="maximum context length is 512 tokens") as caught:
        await built(chat=chat_prompt([ChatMessage("user", "x" * 3000)], QWEN), max_tokens=1)
    assert "the messages have 1" in caught.value.why
    assert "context_tokens" in caught.value.fix


class SlowEngine(ScriptedEngine):
    """Takes a second for each piece, by its own account."""

    id = LLAMACPP

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        async with aclosing(super().generate(request)) as chunks:
            number = 0
            async for chunk in chunks:
                number += 1
                yield GenerationChunk(chunk.text, timings=Timings(decode_ms=1000.0 * number), reason=chunk.reason)


@pytest.mark.parametrize(
    ("pieces", "budget", "expected"),
    [
        (["a", "b", "\n", "c", "d"], 1500, "ab\n"),
        (["a", "\n", "b", "c", "d"], 3500, "a\nbc"),
        (["a", "b", "c"], 500, "abc"),
        (["a\nb", "c"], 500, "a\nb"),
        (["a", "\n", "b"], None, "a\nb"),
    ],
)
async def test_the_time_for_an_answer_ends_it_only_after_a_complete_line(
    tmp_path: Path, pieces: list[str], budget: int | None, expected: str
) -> None:
    service = one_model_service(tiny_entry(b""), SlowEngine(pieces), AdapterRegistry(tmp_path))
    asked = RawRequest(prefix="x = ", suffix="\n", max_tokens=8, decode_budget_ms=budget)
    async with aclosing(service.raw(asked, model=service.models[Task.FILL], route="test")) as chunks:
        given = [chunk async for chunk in chunks]
    assert "".join(chunk.text for chunk in given) == expected
    whole = expected == "".join(pieces)
    assert given[-1].reason is (FinishReason.STOP if whole else FinishReason.TIMEOUT)
