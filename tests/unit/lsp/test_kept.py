"""What counts as still there of an accepted text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peft_lsp.feedback import MAX_CHARS_COMPARED, count_kept_characters

texts = st.text(st.sampled_from("ab\n (x"), max_size=40)


def test_a_renamed_variable_leaves_the_rest() -> None:
    assert count_kept_characters("total = sum(xs)\n", "result = sum(xs)\n") == len(" = sum(xs)\n")


def test_letters_that_happen_to_be_alike_do_not_count() -> None:
    assert count_kept_characters("return a + b", "raise ValueError") == 0


def test_a_long_text_is_compared_by_lines() -> None:
    lines = [f"value_{n} = {n}\n" for n in range(MAX_CHARS_COMPARED // 10)]
    changed = [*lines[:50], "other\n", *lines[51:]]
    assert count_kept_characters("".join(lines), "".join(changed)) == sum(map(len, lines)) - len(lines[50])


@given(texts, texts, texts, texts)
def test_a_whole_text_is_kept_whole_and_nothing_is_kept_of_an_empty_place(a: str, b: str, c: str, d: str) -> None:
    assert count_kept_characters(a, b + a + c) == len(a)
    assert count_kept_characters(a, "") == 0
    assert 0 <= count_kept_characters(a + b, c + d) <= len(a + b)
