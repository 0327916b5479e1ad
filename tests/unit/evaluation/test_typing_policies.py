"""The re-created policies' own logic, as their sources have it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.errors import InvalidInput
from peft_evaluation.typing.policies import catalogue
from peft_evaluation.typing.policies.base import Engine
from peft_evaluation.typing.policies.completion_cache import CompletionCache, Key
from peft_evaluation.typing.policies.lines import Around
from peft_evaluation.typing.policies.llama_server import _by_line
from peft_evaluation.typing.policies.llama_vscode import after, fitted, key_of, without_empty_end, without_indent
from peft_evaluation.typing.policies.llm_ls import CONTEXT_TOKENS, LlmLsSession, Wanted, prompt
from peft_evaluation.typing.policies.positions import offset, position
from peft_evaluation.typing.policies.repeating import repeats
from peft_evaluation.typing.policies.ring import CHUNKS, QUEUE, Ring


def around(text: str) -> Around:
    """At the mark ``|``."""
    return Around.of(text.replace("|", ""), text.index("|"))


def test_a_cached_answer_serves_as_far_as_it_was_typed() -> None:
    cache = CompletionCache(10)
    cache.put(Key("p", "s", "x = "), "value + 1")
    assert cache.get(Key("p", "s", "x = val")) == "ue + 1"
    assert cache.get(Key("p", "s", "x = vax")) is None
    assert cache.get(Key("p", "other", "x = val")) is None


def test_the_answer_used_longest_ago_goes_first() -> None:
    cache = CompletionCache(2)
    for name in "ab":
        cache.put(Key(name, "", ""), name)
    cache.get(Key("a", "", ""))
    cache.put(Key("c", "", ""), "c")
    assert [cache.get(Key(name, "", "")) for name in "abc"] == ["a", None, "c"]


def test_a_request_has_whole_lines_and_no_bare_indentation() -> None:
    assert key_of(around("a\nb = |2\nc\n")) == Key("a\n", "2\nc\n\n", "b = ")
    assert key_of(around("a\n    |\n")).prompt == ""


def test_the_request_ahead_is_that_after_accepting() -> None:
    key = Key("a\n", "\n", "b = ")
    assert after(key, ["1"]) == Key("a\n", "\n", "b = 1")
    assert after(key, ["1", "c = ", "d"]) == Key("a\nb = 1\nc = \n", "\n", "d")


def test_a_suggestion_before_more_of_the_line_is_one_line_without_what_is_there() -> None:
    assert fitted(["a, b)"], ")") == "a, b"
    assert fitted(["a", "b"], ")") == "a"
    assert fitted(["a", "b"], "") == "a\nb"
    assert without_empty_end("a\n\n  \n") == ["a"]
    assert without_indent("        x", 4) == "    x"


@pytest.mark.parametrize(
    ("text", "lines", "thrown_away"),
    [
        ("a|\nb\n", [], True),
        ("a|\nb\n", ["  "], True),
        ("a|)\nb\n", [")"], True),
        ("a = |\n\nb = 1\n", ["", "", "b = 1"], True),
        ("|\nb = 1\nc\n", ["b = 1"], True),
        ("|\nb = 1\ncd\n", ["b = 1", "c"], True),
        ("|\nb = 1\nc\nd\n", ["b = 1", "c", "d"], True),
        ("|\nb = 1\nc\n", ["b = 2"], False),
        ("a = |\nb = 1\n", ["1"], False),
        ("a = |", ["1"], False),
    ],
)
def test_what_stands_there_already_is_not_suggested(text: str, lines: Sequence[str], thrown_away: bool) -> None:
    assert repeats(lines, around(text)) is thrown_away


def test_the_ring_takes_in_one_chunk_at_a_time_and_forgets_the_oldest() -> None:
    ring = Ring(Random(0))
    for number in range(CHUNKS + 3):
        ring.pick("f", [f"{number} {line}" for line in range(10)], evict=True)
        assert ring.take_in()
    assert not ring.take_in()
    assert len(ring.chunks) == CHUNKS
    assert ring.chunks[0].lines[0] == "3 0"


def test_the_ring_has_no_two_chunks_much_alike_and_no_tiny_ones() -> None:
    ring = Ring(Random(0))
    lines = [str(number) for number in range(40)]
    ring.pick("f", lines, evict=True)
    ring.pick("f", lines, evict=True)
    ring.pick("f", [*lines, "one more"], evict=True)
    ring.pick("f", ["a", "b"], evict=True)
    assert [len(chunk.lines) for chunk in ring.queued] == [41]
    for number in range(QUEUE + 5):
        ring.pick("f", [f"{number} {line}" for line in range(5)], evict=True)
    assert len(ring.queued) == QUEUE


def test_a_prompt_has_lines_from_both_sides_until_the_context_is_full() -> None:
    async def count(lines: Sequence[str]) -> list[int]:
        return [len(line) for line in lines]

    def built(text: str) -> str:
        return asyncio.run(prompt(text.replace("|", ""), text.index("|"), count))

    assert built("a\nb|c\nd\n") == "<|fim_prefix|>a\nb<|fim_suffix|>c\nd\n<|fim_middle|>"
    long = "x" * (CONTEXT_TOKENS // 4) + "\n"
    assert built(long * 4 + "|" + long * 4).count("x\n") == 3


def test_how_much_is_shown_depends_on_the_syntax_at_the_cursor() -> None:
    session = LlmLsSession(Engine("", Path(), 1))

    def wanted(text: str) -> Wanted:
        return session.wanted(text.replace("|", ""), text.index("|"))

    assert wanted("def f():\n    return a\n|\n") is Wanted.ALL
    assert wanted("value = some|thing\n") is Wanted.NOTHING
    assert wanted("value = fo|o\n") is Wanted.LINE
    assert wanted("|") is Wanted.NOTHING


def test_tokens_belong_to_the_line_they_begin_in() -> None:
    assert _by_line([3, 5, 2], [2, 2, 2, 2, 2]) == [2, 2, 1]


@given(st.text("ab😀é\n", max_size=30), st.data())
def test_positions_and_offsets_are_each_others_inverse(text: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(text)))
    assert offset(text, position(text, place)) == place


def test_a_policy_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no policy 'copilot'"):
        catalogue.chosen(["ours", "copilot"])
    assert [policy.name for policy in catalogue.chosen(["infill", "ours", "infill"])] == ["infill", "ours"]
