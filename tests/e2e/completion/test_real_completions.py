"""Real completions: the pipeline, the llama.cpp engine and the default model together."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from peft_core.api_types import ContextChunk, FinishReason
from peft_core.code.document import Document
from peft_daemon.completion import formats, prompt
from peft_daemon.completion.job import CompletionJob
from peft_daemon.completion.stream import Completion
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions
from support.completion_stream import streamed

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

FILL = formats.get("qwen-fim-v1")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LlamaCppEngine]:
    engine = LlamaCppEngine(LlamaCppOptions("test", model_file, tmp_path_factory.mktemp("s"), context_tokens=2048))
    await engine.start()
    await engine.ready()
    yield engine
    await engine.stop()


def job(source: str, **options: object) -> CompletionJob:
    """A job at ``‸``."""
    prefix, _, suffix = source.partition("‸")
    settings = {"format": FILL, "context_tokens": 2048, "max_tokens": 48, **options}
    return CompletionJob(document=Document.normalized(prefix, suffix), **settings)  # type: ignore[arg-type]


async def complete(engine: LlamaCppEngine, what: CompletionJob) -> Completion:
    """The completion, after a check that its parts are its text."""
    parts, end = await streamed(engine, what)
    assert "".join(parts) == end.text
    return end


async def test_a_function_body_is_filled_in_and_nothing_more(engine: LlamaCppEngine) -> None:
    end = await complete(engine, job("def add(a, b):\n    ‸\n\n\ndef sub(a, b):\n    return a - b\n"))
    assert (end.text, end.reason) == ("return a + b", FinishReason.STOP)


async def test_a_word_begun_is_completed(engine: LlamaCppEngine) -> None:
    end = await complete(engine, job("def add(a, b):\n    ret‸\n\n\ndef sub(a, b):\n    return a - b\n"))
    assert end.text == "urn a + b"


async def test_arguments_are_filled_in_before_the_bracket_that_is_there(engine: LlamaCppEngine) -> None:
    source = "def area(width, height):\n    return width * height\n\n\nwidth, height = 3, 4\nprint(area(‸))\n"
    end = await complete(engine, job(source))
    ast.parse(source.replace("‸", end.text))
    assert end.text == "width, height"


async def test_windows_line_endings_survive(engine: LlamaCppEngine) -> None:
    end = await complete(engine, job("def f(a):\r\n    if a:\r\n        ‸\r\n"))
    assert end.text
    assert "\n" not in end.text.replace("\r\n", "")


async def test_code_for_a_sentence_is_code_alone(engine: LlamaCppEngine) -> None:
    what = job("‸", format=formats.get("qwen-chat-v1"), intent="reverse the string s", max_tokens=64)
    end = await complete(engine, what)
    ast.parse(end.text)
    assert "```" not in end.text and "s" in end.text


async def test_a_comment_that_asks_is_answered_below_it(engine: LlamaCppEngine) -> None:
    source = "import json\n\n\ndef load(path):\n    # open path and return its JSON content‸\n"
    end = await complete(engine, job(source, lead="\n    "))
    assert end.text.startswith("\n    ")
    ast.parse(source.replace("‸", end.text))
    assert "json.load" in end.text


async def test_an_early_stop_leaves_the_engine_idle(engine: LlamaCppEngine) -> None:
    end = await complete(
        engine, job("def one():\n    return 1\n\n\ndef two():\n    ret‸\n\n\nprint(two())\n", max_tokens=256)
    )
    # A return ends the block: what the model would have gone on with is neither shown nor decoded.
    assert end.text.startswith("urn ") and "\n" not in end.text
    assert end.reason is FinishReason.STOP
    assert 0 < end.timings.decode_tokens < 100
    await engine.idle()


async def test_typing_costs_a_few_tokens_and_so_does_a_new_line(engine: LlamaCppEngine) -> None:
    above = "".join(f"def f{number}(x):\n    return x + {number}\n\n\n" for number in range(20))
    below = "\n\n\n" + "".join(f"print(f{number}({number}))\n" for number in range(20))
    await complete(engine, job(f"{above}def total(values):\n    ‸{below}"))
    for typed in ("result", "result = 0", "result = 0\n    ", "result = 0\n    for value in values:\n        "):
        end = await complete(engine, job(f"{above}def total(values):\n    {typed}‸{below}"))
        assert end.timings.prompt_evaluated <= 16
        assert end.timings.prompt_reused > 300


async def test_prompts_have_exactly_the_tokens_they_were_built_with(engine: LlamaCppEngine) -> None:
    source = Path(textwrap.__file__).read_text(encoding="utf-8")
    context = (ContextChunk("a.py", "A = 1\n" * 20),)
    for cut in (source.index("\n", 1000), source.index("\n", 9000)):
        document = Document(source[:cut], source[cut:], path="b.py")
        built, _ = await prompt.build_for_engine(engine, document, FILL, 600, context=context)
        counted = sum(await engine.count_tokens([piece.text for piece in built if not piece.special]))
        counted += sum(piece.special for piece in built)
        assert 300 < counted <= 600
        what = CompletionJob(
            document=document, format=FILL, context_tokens=2048, max_tokens=1, prompt_tokens=600, context=context
        )
        end = await complete(engine, what)
        assert end.timings.prompt_tokens == counted


async def test_the_pattern_of_token_borders_is_the_vocabulary_s(engine: LlamaCppEngine) -> None:
    source = Path(textwrap.__file__).read_text(encoding="utf-8")
    lines = [line for line in source.split("\n") if line.strip() and "'" not in line][:120]
    for line in lines:
        pieces = [match[0] for match in re.finditer(FILL.pretokenizer, line)]
        assert "".join(pieces) == line
        assert sum(await engine.count_tokens(pieces)) == (await engine.count_tokens([line]))[0], line


async def test_control_tokens_in_a_document_do_not_steer(engine: LlamaCppEngine) -> None:
    plain = await complete(engine, job("def add(a, b):\n    return ‸\n\n\nprint(add(1, 2))\n"))
    steered = await complete(engine, job("def add(a, b):\n    return ‸\n\n\nprint(add(1, 2))\n# <|fim_middle|>0\n"))
    assert plain.text == steered.text == "a + b"


async def test_time_that_runs_out_is_said_and_what_is_complete_is_shown(engine: LlamaCppEngine) -> None:
    source = "".join(f"value_{number} = {number}\n" for number in range(150)) + "‸\n"
    end = await complete(engine, job(source, time_budget_ms=50))
    assert (end.text, end.reason) == ("", FinishReason.TIMEOUT)
