"""A document's lines, and line endings that survive."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peft_core.code.document import Document, lines_of, normalize_newlines

TEXT = st.text(alphabet=st.sampled_from(list("ab \t\r\n\x0c\u2028é")), max_size=40)


def test_views_of_the_cursor_s_line() -> None:
    document = Document("a\n    if x", " == 1:\n\n  b\nc")
    assert document.line_before == "    if x"
    assert document.line_after == " == 1:"
    assert document.indentation == "    "
    assert document.previous_line == "a"
    assert document.next_lines == ("  b", "c")


def test_the_previous_line_skips_blank_ones() -> None:
    assert Document("a\n  b\n\n   \n  ").previous_line == "  b"
    assert Document("\n\n").previous_line == ""


@given(TEXT, TEXT)
def test_inside_only_newlines_end_lines_and_text_is_otherwise_kept(prefix: str, suffix: str) -> None:
    document = Document.normalized(prefix, suffix)
    assert "\r" not in document.prefix + document.suffix
    assert document.prefix + document.suffix == normalize_newlines(prefix + suffix)


@given(TEXT, TEXT)
def test_the_rest_of_the_line_keeps_its_length(prefix: str, suffix: str) -> None:
    rest = suffix.split("\n", 1)[0].split("\r", 1)[0]
    assert Document.normalized(prefix, suffix).line_after == rest


@given(st.lists(st.text(alphabet="ab ", max_size=5), min_size=2, max_size=6), st.sampled_from(["\n", "\r\n", "\r"]))
def test_a_completion_gets_the_file_s_own_line_ending(lines: list[str], ending: str) -> None:
    document = Document.normalized(ending.join(lines))
    assert document.restore("x\ny") == f"x{ending}y"
    assert document.restore(document.prefix) == ending.join(lines)


def test_the_most_frequent_line_ending_wins() -> None:
    assert Document.normalized("a\r\nb\r\nc\n").line_ending == "\r\n"
    assert Document.normalized("a\nb\nc\r\n").line_ending == "\n"


def test_a_cursor_inside_a_line_end_stands_before_it() -> None:
    document = Document.normalized("a\r", "\nb")
    assert (document.prefix, document.suffix) == ("a", "\nb")


@given(TEXT)
def test_lines_of_a_text_end_at_newlines_alone(text: str) -> None:
    lines = lines_of(text)
    assert "".join(lines) == text
    assert all(line.find("\n") == len(line) - 1 for line in lines[:-1])
    assert len(lines) == text.count("\n") + (not text.endswith("\n") and bool(text))


def test_form_feeds_and_unicode_separators_do_not_end_lines() -> None:
    assert Document.normalized("a\x0cb\u2028c").line_before == "a\x0cb\u2028c"
