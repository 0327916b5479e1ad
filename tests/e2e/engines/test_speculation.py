"""Guessing from the prompt with the real model: it happens, and changes nothing that is written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from peft_core.api_types import FinishReason
from peft_daemon.engines.base import GenerationChunk, GenerationRequest, Segment, TokenLogprob
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

REPEATS = (
    Segment(
        "def alpha(items):\n    total = 0\n    for item in items:\n        total += item.price * item.count\n"
        "    return total\n\n\ndef beta(items):\n    total = 0\n    for"
    ),
)
BODY = " item in items:\n        total += item.price * item.count\n    return total\n"


@pytest.fixture(scope="module")
def options(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> LlamaCppOptions:
    return LlamaCppOptions("test", model_file, tmp_path_factory.mktemp("s"), threads=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engines(options: LlamaCppOptions) -> AsyncIterator[tuple[LlamaCppEngine, LlamaCppEngine]]:
    """One that does not guess, and one that does."""
    both = LlamaCppEngine(options), LlamaCppEngine(replace(options, speculation=True, slots=2))
    for engine in both:
        await engine.start()
        await engine.ready()
    yield both
    for engine in both:
        await engine.stop()


async def ask(engine: LlamaCppEngine, request: GenerationRequest) -> tuple[str, list[TokenLogprob], GenerationChunk]:
    text, tokens = "", []
    async with aclosing(engine.generate(request)) as chunks:
        async for chunk in chunks:
            text += chunk.text
            tokens += chunk.logprobs
            if chunk.reason is not None:
                return text, tokens, chunk
    raise AssertionError("the last chunk has a reason")


async def counted(engine: LlamaCppEngine) -> dict[str, Any]:
    server = engine.child.server  # type: ignore[union-attr]
    body = {"prompt": REPEATS[0].text, "n_predict": 20, "temperature": 0, "lora": []}
    timings: dict[str, Any] = (await server._post("/completion", body))["timings"]
    return timings


async def test_what_follows_in_the_prompt_is_tried_and_taken(engines: tuple[LlamaCppEngine, LlamaCppEngine]) -> None:
    plain, guessing = engines
    assert not (await counted(plain)).get("draft_n")
    assert (await counted(guessing))["draft_n_accepted"] >= 7


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 24},
        {"max_tokens": 3},
        {"stop": ("count", "never")},
        {"begins_with": " it"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_the_answer_is_the_same(engines: tuple[LlamaCppEngine, LlamaCppEngine], change: dict[str, Any]) -> None:
    request = replace(GenerationRequest(REPEATS, 24), **change)
    answers = []
    for engine in engines:
        await ask(engine, replace(request, max_tokens=0))
        answers.append(await ask(engine, request))
    (text, _, last), (other, _, end) = answers
    assert text == other
    assert last.reason is end.reason
    assert last.timings.decode_tokens == end.timings.decode_tokens
    assert text and (BODY.startswith(text) or text.startswith(BODY))


async def test_what_was_guessed_and_accepted_is_not_read_again(engines: tuple[LlamaCppEngine, LlamaCppEngine]) -> None:
    _, guessing = engines
    text, _, last = await ask(guessing, GenerationRequest(REPEATS, 24))
    assert last.reason is FinishReason.LENGTH
    slot = max(guessing.child.server.slots.free, key=lambda slot: slot.used)  # type: ignore[union-attr]
    assert len(slot.tokens) >= last.timings.prompt_tokens + 16
    _, _, last = await ask(guessing, GenerationRequest((Segment(REPEATS[0].text + text),), 1))
    assert last.timings.prompt_evaluated <= 12


async def test_probabilities_are_those_of_an_engine_that_does_not_guess(
    engines: tuple[LlamaCppEngine, LlamaCppEngine],
) -> None:
    answers = []
    for engine in engines:
        request = GenerationRequest(REPEATS, 12, logprobs=2)
        await ask(engine, replace(request, max_tokens=0))
        answers.append(await ask(engine, request))
    (text, tokens, _), (other, guessed, _) = answers
    assert (text, [t.token for t in tokens]) == (other, [t.token for t in guessed])
    assert len(guessed) == 12 and all(len(t.top) == 2 for t in guessed)
    assert [t.logprob for t in guessed] == pytest.approx([t.logprob for t in tokens], abs=0.05)
