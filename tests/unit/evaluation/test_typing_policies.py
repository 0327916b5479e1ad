"""The re-created policies' own logic, as their sources have it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.errors import InvalidInput
from peft_evaluation.typing_benchmark.policies import catalogue
from peft_evaluation.typing_benchmark.policies.editor_client import lsp_position, offset_of
from peft_evaluation.typing_benchmark.policies.llama_vscode import (
    after,
    fitted,
    key_of,
    without_empty_end,
    without_indent,
)
from peft_evaluation.typing_benchmark.policies.llama_vscode_state import (
    MAX_CHUNKS,
    MAX_QUEUED,
    ContextRing,
    CursorLines,
    InfillCache,
    InfillKey,
    is_discarded,
)


def around(text: str) -> CursorLines:
    """At the mark ``|``."""
    return CursorLines.of(text.replace("|", ""), text.index("|"))


def test_a_cached_answer_serves_as_far_as_it_was_typed() -> None:
    cache = InfillCache(10)
    cache.put(InfillKey("p", "s", "x = "), ["value + 1", "vast", "other"])
    assert cache.get(InfillKey("p", "s", "x = ")) == ("value + 1", "vast", "other")
    assert cache.get(InfillKey("p", "s", "x = val")) == ("ue + 1",)
    assert cache.get(InfillKey("p", "s", "x = va")) == ("lue + 1", "st")
    assert cache.get(InfillKey("p", "s", "x = vax")) is None
    assert cache.get(InfillKey("p", "other", "x = val")) is None


def test_the_answer_used_longest_ago_goes_first() -> None:
    cache = InfillCache(2)
    for name in "ab":
        cache.put(InfillKey(name, "", ""), [name])
    cache.get(InfillKey("a", "", ""))
    cache.put(InfillKey("c", "", ""), ["c"])
    assert [cache.get(InfillKey(name, "", "")) for name in "abc"] == [("a",), None, ("c",)]


def test_a_request_has_whole_lines_and_no_bare_indentation() -> None:
    assert key_of(around("a\nb = |2\nc\n")) == InfillKey("a\n", "2\nc\n\n", "b = ")
    assert key_of(around("a\n    |\n")).prompt == ""


def test_the_request_ahead_is_that_after_accepting() -> None:
    key = InfillKey("a\n", "\n", "b = ")
    assert after(key, ["1"]) == InfillKey("a\n", "\n", "b = 1")
    assert after(key, ["1", "c = ", "d"]) == InfillKey("a\nb = 1\nc = \n", "\n", "d")


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
    assert is_discarded(lines, around(text)) is thrown_away


def test_the_ring_takes_in_one_chunk_at_a_time_and_forgets_the_oldest() -> None:
    ring = ContextRing(Random(0))
    for number in range(MAX_CHUNKS + 3):
        ring.pick("f", [f"{number} {line}" for line in range(10)], evict=True)
        assert ring.add_queued()
    assert not ring.add_queued()
    assert len(ring.chunks) == MAX_CHUNKS
    assert ring.chunks[0].lines[0] == "3 0"


def test_the_ring_has_no_two_chunks_much_alike_and_no_tiny_ones() -> None:
    ring = ContextRing(Random(0))
    lines = [str(number) for number in range(40)]
    ring.pick("f", lines, evict=True)
    ring.pick("f", lines, evict=True)
    ring.pick("f", [*lines, "one more"], evict=True)
    ring.pick("f", ["a", "b"], evict=True)
    assert [len(chunk.lines) for chunk in ring.queued] == [41]
    for number in range(MAX_QUEUED + 5):
        ring.pick("f", [f"{number} {line}" for line in range(5)], evict=True)
    assert len(ring.queued) == MAX_QUEUED


@given(st.text("ab😀é\n", max_size=30), st.data())
def test_positions_and_offsets_are_each_others_inverse(text: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(text)))
    assert offset_of(text, lsp_position(text, place)) == place


def test_a_policy_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no policy 'copilot'"):
        catalogue.choose_policies(["ours", "copilot"])
    assert [policy.name for policy in catalogue.choose_policies(["llama.vscode", "ours", "llama.vscode"])] == [
        "llama.vscode",
        "ours",
    ]
