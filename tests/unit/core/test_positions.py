"""Columns of an editor and offsets of Python mean the same character, in every encoding the protocol knows."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from peft_core.code.positions import Encoding, content, negotiate, split_lines, to_column, to_offset

ENCODINGS = list(Encoding)
CODEC = {Encoding.UTF8: ("utf-8", 1), Encoding.UTF16: ("utf-16-le", 2), Encoding.UTF32: ("utf-32-le", 4)}

characters = st.characters(codec="utf-8", exclude_characters="\r\n")
lines = st.text(st.one_of(st.sampled_from("aé€😀𝒳\u2028\x0c\t"), characters))
texts = st.text(st.sampled_from("ab😀é\n\r\u2028\x0c\x85"), max_size=40)


def units(text: str, encoding: Encoding) -> int:
    """The number of columns a text is wide, by the definition of the encoding."""
    codec, width = CODEC[encoding]
    return len(text.encode(codec)) // width


@given(lines, st.sampled_from(ENCODINGS))
def test_every_character_keeps_its_place(line: str, encoding: Encoding) -> None:
    for offset in range(len(line) + 1):
        column = to_column(line, offset, encoding)
        assert column == units(line[:offset], encoding)
        assert to_offset(line, column, encoding) == offset


@given(lines, st.integers(0, 200), st.sampled_from(ENCODINGS))
@example("a😀b", 2, Encoding.UTF16)
@example("a€b", 2, Encoding.UTF8)
def test_any_column_means_the_last_character_that_begins_at_or_before_it(
    line: str, column: int, encoding: Encoding
) -> None:
    starts = [units(line[:offset], encoding) for offset in range(len(line) + 1)]
    assert to_offset(line, column, encoding) == max(i for i, start in enumerate(starts) if start <= column)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_columns_and_offsets_outside_the_line_are_clamped(encoding: Encoding) -> None:
    assert to_offset("né😀", 10_000, encoding) == 3
    assert to_offset("né😀", -1, encoding) == 0
    assert to_column("né😀", 10_000, encoding) == units("né😀", encoding)
    assert to_column("né😀", -1, encoding) == 0


def test_an_emoji_is_two_columns_wide_in_utf16() -> None:
    assert to_offset("😀 = 1", 3, Encoding.UTF16) == 2
    assert to_offset("😀 = 1", 1, Encoding.UTF16) == 0
    assert to_column("😀 = 1", 2, Encoding.UTF16) == 3


def test_half_a_character_that_a_client_left_in_a_line_does_not_break_the_count() -> None:
    assert [to_offset("a\ud83db", column, Encoding.UTF16) for column in range(4)] == [0, 1, 2, 3]
    assert to_column("a\ud83db", 2, Encoding.UTF16) == 2
    assert to_offset("a\ud83db", 4, Encoding.UTF8) == 2


@given(texts)
def test_lines_end_only_where_the_protocol_says(text: str) -> None:
    pieces = split_lines(text)
    assert "".join(pieces) == text
    assert len(pieces) == len(re.findall(r"\r\n|\r|\n", text)) + 1
    assert all(re.fullmatch(r"[^\r\n]*(\r\n|\r|\n)", piece) for piece in pieces[:-1])
    assert not re.search(r"[\r\n]", pieces[-1])


@pytest.mark.parametrize(
    ("line", "bare"), [("a\r\n", "a"), ("a\n", "a"), ("a\r", "a"), ("a", "a"), ("", ""), ("\n", "")]
)
def test_the_content_of_a_line_is_the_line_without_its_end(line: str, bare: str) -> None:
    assert content(line) == bare


def test_the_client_s_first_known_encoding_is_taken_and_utf16_without_an_offer() -> None:
    assert negotiate(["utf-7", "utf-8", "utf-16"]) is Encoding.UTF8
    assert negotiate(["utf-7"]) is Encoding.UTF16
    assert negotiate(None) is Encoding.UTF16
    assert negotiate([3, "utf-32"]) is Encoding.UTF32
