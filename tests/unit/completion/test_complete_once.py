"""One completion from start to end: what is given when, and when decoding stops."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.scripted_engines import PacedEngine, ScriptedEngine
from peft_core.api_types import ContextChunk, FinishReason, SamplingParams, Task, Timings
from peft_core.code.document import Document
from peft_core.errors import InvalidInput
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.completion import formats
from peft_daemon.completion.job import CompletionJob
from peft_daemon.completion.stream import Completion, StreamStats, complete_once
from support.completion_stream import completer, no_deadlines, streamed

QWEN = formats.get("qwen-fim-v1")


def job(source: str, **options: object) -> CompletionJob:
    """A job at ``‸``."""
    prefix, _, suffix = source.partition("‸")
    settings = {"format": QWEN, "context_tokens": 1024, "max_tokens": 64, **options}
    return CompletionJob(document=Document.normalized(prefix, suffix), **settings)  # type: ignore[arg-type]


async def run(engine: ScriptedEngine, what: CompletionJob) -> tuple[list[str], Completion]:
    """All parts, and the end."""
    return await streamed(engine, what)


async def test_lines_are_given_as_soon_as_they_are_complete() -> None:
    engine = PacedEngine(lambda _: ["a()", "\n    b", "()\n", "    c()"], at_once=2)
    async with aclosing(completer(engine).run(job("def f():\n    ‸\n"), StreamStats(), no_deadlines())) as items:
        assert await anext(items) == "a()", "given while the engine waits"
        engine.go.set()
        assert await anext(items) == "\n    b()"
        assert await anext(items) == "\n    c()"


async def test_the_parts_in_a_row_are_the_text() -> None:
    parts, end = await run(ScriptedEngine(["a()\n", "    b()\n", "    c()\n"]), job("def f():\n    ‸\n"))
    assert "".join(parts) == end.text == "a()\n    b()\n    c()"
    assert (end.reason, end.replace_after) == (FinishReason.STOP, 0)


async def test_of_an_answer_to_a_sentence_that_is_cut_off_no_string_stays_open() -> None:
    said = ["def add(a, b):\n", '    """\n', "    Add.\n", "\n", "    Returns:\n"]
    what = job("‸", format=formats.get("qwen-chat-v1"), task=Task.INTENT, intent="add a and b")
    parts, end = await run(ScriptedEngine(said, reason=FinishReason.LENGTH), what)
    assert "".join(parts) == end.text == "def add(a, b):"


@pytest.mark.parametrize("form", ["qwen-chat-v1", "qwen-fim-v1"])
async def test_decoding_stops_when_a_line_runs_in_circles(form: str) -> None:
    engine = ScriptedEngine(["import glob\n", "found = glob.glob('*/**", *["/*"] * 200])
    task = formats.get(form).task
    what = job("import os\n‸\n", format=formats.get(form), task=task, intent="find all large files", max_tokens=256)
    parts, end = await run(engine, what)
    assert "".join(parts) == end.text == "import glob"
    assert end.reason is FinishReason.STOP
    assert engine.given < 80
    assert engine.closed


async def test_decoding_stops_when_the_block_is_left() -> None:
    engine = ScriptedEngine(["y = x\n", "\n\ndef g():\n", "    never()\n"])
    _, end = await run(engine, job("def f(x):\n    ‸\n"))
    assert end.text == "y = x"
    assert end.reason is FinishReason.STOP
    assert (engine.given, engine.closed) == (2, True)


@pytest.mark.parametrize(
    ("source", "first_line", "shown"),
    [
        ("def f(x):\n    ‸\n", "return x\n", "return x"),
        ("x = ‸\n", "1\n", "1"),
        ("if x:\n    ‸\n", "raise E(\n    1\n    )\n", "raise E(\n    1\n    )"),
    ],
)
async def test_decoding_stops_at_the_end_of_the_line_that_ends_it_all(source: str, first_line: str, shown: str) -> None:
    engine = ScriptedEngine([first_line, "    more()\n"])
    _, end = await run(engine, job(source))
    assert (end.text, engine.given) == (shown, 1)


async def test_timings_of_a_stopped_decoding_are_those_of_its_last_token() -> None:
    _, end = await run(ScriptedEngine(["y = x\n", "\nx = 1\n", "y = 2\n"]), job("def f(x):\n    ‸\n"))
    assert end.timings == Timings(prompt_tokens=7, decode_tokens=2)


async def test_timings_of_a_finished_decoding_are_the_engine_s() -> None:
    _, end = await run(ScriptedEngine(["1"]), job("x = ‸\n"))
    assert end.timings == Timings(prompt_tokens=7, decode_tokens=1, total_ms=1.0)


async def test_where_one_line_is_wanted_the_engine_is_told_to_end_with_it() -> None:
    engine = ScriptedEngine(["a, b)"])
    _, end = await run(engine, job("print(‸)\n"))
    assert end.text == "a, b"
    assert engine.request is not None and "\n" in engine.request.stop


async def test_closing_the_stream_stops_the_engine() -> None:
    engine = PacedEngine(lambda _: ["a()\n", "    b()\n", "    c()\n"], at_once=1)
    own = completer(engine)
    items = own.run(job("def f():\n    ‸\n"), StreamStats(), no_deadlines())
    assert await anext(items) == "a()"
    assert engine.running == 1
    await items.aclose()
    await own.close()
    assert engine.running == 0


async def test_cancelling_the_task_that_reads_stops_the_engine() -> None:
    engine = PacedEngine(lambda _: ["a()\n", "    b()\n"], at_once=1)
    task = asyncio.create_task(complete_once(engine, job("def f():\n    ‸\n")))
    await engine.waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.running == 0


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.TIMEOUT])
async def test_of_a_cut_off_answer_the_complete_lines_are_shown_with_the_reason(reason: FinishReason) -> None:
    _, end = await run(ScriptedEngine(["a()\n    b()\n    c(d,"], reason), job("def f():\n    ‸\n"))
    assert (end.text, end.reason) == ("a()\n    b()", reason)


async def test_a_cut_off_line_is_shown_up_to_its_last_whole_word() -> None:
    _, end = await run(ScriptedEngine(["alpha + be"], FinishReason.TIMEOUT), job("x = ‸\n"))
    assert (end.text, end.reason) == ("alpha +", FinishReason.TIMEOUT)


@pytest.mark.parametrize("answer", [[], ["\n\n"], ["```"], ["   "]])
async def test_nothing_worth_showing_is_empty(answer: list[str]) -> None:
    parts, end = await run(ScriptedEngine(answer), job("def f():\n    ‸\n"))
    assert (parts, end.text, end.reason) == ([], "", FinishReason.EMPTY)


async def test_time_that_ran_out_before_there_was_text_is_said() -> None:
    _, end = await run(ScriptedEngine([], FinishReason.TIMEOUT), job("x = ‸\n"))
    assert (end.text, end.reason) == ("", FinishReason.TIMEOUT)


@pytest.mark.parametrize("source", ["x = ‸foo", "x = a‸_b", "‸é"])
async def test_inside_a_word_the_model_is_not_even_asked(source: str) -> None:
    engine = ScriptedEngine(["1"])
    _, end = await run(engine, job(source))
    assert (end.text, end.reason, engine.request) == ("", FinishReason.EMPTY, None)


async def test_in_an_empty_document_there_is_nothing_to_go_by() -> None:
    engine = ScriptedEngine(["import React"])
    _, end = await run(engine, job("\n‸\n"))
    assert (end.text, end.reason, engine.request) == ("", FinishReason.EMPTY, None)


async def test_the_answer_is_asked_to_begin_with_what_was_held_back() -> None:
    engine = ScriptedEngine(["turn x"])
    _, end = await run(engine, job("def f(x):\n    re‸\n"))
    assert engine.request is not None and engine.request.begins_with == " re"
    assert end.text == "turn x"


async def test_an_answer_that_contradicts_what_is_typed_is_dropped_at_once() -> None:
    engine = ScriptedEngine([" yield", " x\n"], constrains=False)
    _, end = await run(engine, job("def f(x):\n    re‸\n"))
    assert (end.text, end.reason) == ("", FinishReason.EMPTY)
    assert (engine.given, engine.closed) == (1, True)


async def test_held_back_text_may_come_in_pieces() -> None:
    engine = ScriptedEngine([" r", "et", "urn", " x"], constrains=False)
    _, end = await run(engine, job("def f(x):\n    re‸\n"))
    assert end.text == "turn x"


async def test_auto_inserted_brackets_are_overwritten() -> None:
    _, end = await run(ScriptedEngine(["a).strip()"]), job("print(‸)\n"))
    assert (end.text, end.replace_after) == ("a).strip()", 1)


@pytest.mark.parametrize("pieces", [["a()\n", "    b()\n"], ["a()\n    b()"], ["a()", "\n    b()"]])
async def test_a_file_with_its_own_line_ending_gets_it(pieces: list[str]) -> None:
    parts, end = await run(ScriptedEngine(pieces), job("def f():\r\n    ‸\r\n"))
    assert "".join(parts) == end.text == "a()\r\n    b()"


async def test_a_model_that_writes_other_line_endings_is_understood() -> None:
    _, end = await run(ScriptedEngine(["a()\r", "\n    b()\r\n"]), job("def f():\n    ‸\n"))
    assert end.text == "a()\n    b()"


async def test_the_lead_is_part_of_the_text_and_of_the_prompt() -> None:
    engine = ScriptedEngine(["x = 1\n", "\ny = 2\n"])
    _, end = await run(engine, job("def f():\n    # set x to one‸\n", lead="\n    "))
    assert end.text == "\n    x = 1"
    assert engine.request is not None
    assert engine.request.prompt[-1].text.endswith("# set x to one\n   ")


async def test_a_sentence_is_answered_with_code() -> None:
    engine = ScriptedEngine(
        ["Here is the code you asked for:\n", "```python\n", "s[::-1]\n", "```\n", "It reverses s."]
    )
    what = job("‸", format=formats.get("instruct-v1"), intent="reverse s")
    parts, end = await run(engine, what)
    assert "".join(parts) == end.text == "s[::-1]"
    assert engine.given == 4


async def test_limits_sampling_adapter_and_stops_reach_the_engine(tmp_path: object) -> None:
    engine = ScriptedEngine(["1"])
    lease = AdapterLease("digest", tmp_path / "a.gguf", 0.5)  # type: ignore[operator]
    sampling = SamplingParams(0.2, 0.9, 3)
    await complete_once(engine, job("x = ‸\n", time_budget_ms=50, sampling=sampling, stop=("END",), adapter=lease))
    asked = engine.request
    assert asked is not None
    assert asked.adapter == lease
    assert (asked.max_tokens, asked.time_budget_ms, asked.sampling) == (64, 50, sampling)
    assert {"END", "<|endoftext|>", "<|fim_middle|>"} <= set(asked.stop)


async def test_other_files_reach_the_prompt() -> None:
    engine = ScriptedEngine(["1"])
    await run(engine, job("x = ‸\n", context=(ContextChunk("b.py", "B = 1\n"),), repository="shop"))
    assert engine.request is not None
    assert "".join(each.text for each in engine.request.prompt).startswith(
        "<|repo_name|>shop\n<|file_sep|>b.py\nB = 1\n"
    )


async def test_an_answer_larger_than_the_context_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no room"):
        await run(ScriptedEngine(["1"]), job("x = ‸\n", max_tokens=1020))


PIECES = st.sampled_from(["a()", "\n", "    ", "b", "(", ")", '"', "```", "\r\n", "return a", "if x:\n", "é", "\n\n"])


SOURCES = st.sampled_from(["def f():\n    ‸\n", "x = ‸\r\n", "f(‸)\n", 'x = """‸\n'])
REASONS = st.sampled_from([FinishReason.STOP, FinishReason.LENGTH, FinishReason.TIMEOUT])


@given(st.lists(PIECES, max_size=20), REASONS, SOURCES)
async def test_whatever_the_model_says_the_parts_are_the_text(
    pieces: list[str], reason: FinishReason, source: str
) -> None:
    parts, end = await run(ScriptedEngine(pieces, reason), job(source))
    assert "".join(parts) == end.text
    assert bool(end.text) == (end.reason is not FinishReason.EMPTY) or end.reason is FinishReason.TIMEOUT
    if "\r\n" in source:
        assert end.text.count("\n") == end.text.count("\r\n")


def test_importing_completion_loads_no_parser() -> None:
    code = (
        "import sys, peft_daemon.completion.job, peft_daemon.completion.cursor\n"
        "heavy = ('tree_sitter', 'tree_sitter_python', 'torch', 'xllamacpp', 'httpx')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
