"""When an earlier answer goes on with a document, and when it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.api_types import FinishReason, Timings
from peft_core.code.document import Document
from peft_daemon.completion.cache import MIN_CUT_PREFIX_CHARACTERS, GeneratedText, same_behind, typed_since
from peft_daemon.engines.base import GenerationChunk


def answer(prefix: str, suffix: str = "\n", *pieces: str, held: str = "", over: bool = True) -> GeneratedText:
    """An answer that was begun there and has said the pieces."""
    made = GeneratedText(Document(prefix, suffix), held)
    for piece in pieces:
        made.add(GenerationChunk(piece))
    if over:
        made.add(GenerationChunk(reason=FinishReason.STOP))
    return made


@given(st.text("ab(\n ", max_size=20), st.text("ab(\n ", max_size=20), st.text("ab)\n", max_size=10))
def test_what_was_typed_is_what_stands_there_more(prefix: str, typed: str, suffix: str) -> None:
    assert typed_since(answer(prefix, suffix), Document(prefix + typed, suffix)) == typed


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (("x = ", "\n"), ("y = ", "\n")),
        (("x = ", "\n"), ("x =", "\n")),
        (("x = ", "\n"), ("x = ", "\ny\n")),
        (("x = ", "\n"), ("x = f", "oo\n")),
        (("f(", ")\n"), ("f(", "\n)\n")),
    ],
)
def test_any_other_change_makes_an_answer_useless(before: tuple[str, str], now: tuple[str, str]) -> None:
    assert typed_since(answer(*before), Document(*now)) is None


@pytest.mark.parametrize(
    ("before", "now", "typed"),
    [
        (("print", "\n"), ("print(", ")\n"), "("),
        (("print(", ")\n"), ("print(a)", "\n"), "a)"),
        (("x = ", "\n"), ('x = ["', '"]\n'), '["'),
    ],
)
def test_brackets_and_quotes_that_an_editor_inserts_do_not_matter(
    before: tuple[str, str], now: tuple[str, str], typed: str
) -> None:
    assert typed_since(answer(*before), Document(*now)) == typed


def test_an_answer_that_is_ended_while_the_prompt_is_read_knows_how_much_was_read() -> None:
    ended = GeneratedText(Document("x = ", "\n"), "= ")
    ended.add(GenerationChunk(timings=Timings(prompt_evaluated=128)))
    assert not ended.over
    ended.cut()
    assert (ended.text, ended.cut_off, ended.timings.prompt_evaluated) == ("", True, 128)


def test_a_client_may_cut_a_long_text_at_another_place_each_time() -> None:
    lines = "".join(f"line {n}\n" for n in range(6000))
    old, new = lines[-MIN_CUT_PREFIX_CHARACTERS - 500 :], lines[-MIN_CUT_PREFIX_CHARACTERS - 200 :] + "x = "
    assert typed_since(answer(old), Document(new, "\n")) == "x = "
    changed = new.replace("line 5999", "line 599X")
    assert typed_since(answer(old), Document(changed, "\n")) is None


@given(st.text("ab)]", max_size=8), st.text("ab)]", max_size=8))
def test_the_order_does_not_matter_for_what_stands_behind(a: str, b: str) -> None:
    assert same_behind(a, b) == same_behind(b, a)
    assert same_behind(a, a)


def test_an_answer_agrees_with_what_it_begins_with() -> None:
    done = answer("x = ", "\n", "foo", "(1)")
    assert done.agrees("foo(")
    assert not done.agrees("foo(1)x")
    assert not done.agrees("bar")


def test_a_growing_answer_may_still_agree() -> None:
    growing = answer("x = ", "\n", "fo", over=False)
    assert growing.agrees("foo")
    assert not growing.agrees("fa")
    growing.cut()
    assert not growing.agrees("foo")


def test_what_was_held_back_is_not_part_of_it() -> None:
    assert answer("    re", "\n", " return", " x", held=" re").text == "turn x"
    assert answer("    re", "\n", " yield", held=" re", over=False).over


def test_line_ends_are_those_of_documents_however_they_arrive() -> None:
    assert answer("", "\n", "a\r", "\nb").text == "a\nb"


def test_cutting_a_finished_answer_leaves_it_whole() -> None:
    done = answer("x", "\n", "y")
    done.cut()
    assert not done.cut_off
