"""Prose that asks for code is found where it stands, with the place and indentation of the code below it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.code.positions import split_lines
from peft_daemon.completion.cursor import _FOR_TOOLS
from peft_lsp import comments
from peft_lsp.comments import Prose, as_comment, find_prose, find_trailing_comment, strip_comment_marks

MODULE = split_lines(
    '''#!/usr/bin/env python
import os

# read a file
#   line by line
x = 1  # a remark

class A:
    async def f(
        self, a: int = 3,  # x
    ) -> int:
        """Return the sum.

        Of all.
        """

    def g(self):
        """Has a body."""
        return 1

    # sort it

    def one_line(self): "doc"


def broken(
'''
)
COMMENT = Prose(3, 4, "read a file\nline by line", "", docstring=False)
DOCSTRING = Prose(8, 14, "Return the sum.\n\nOf all.", " " * 8, docstring=True)


@pytest.mark.parametrize("line", [3, 4])
def test_a_comment_block_is_found_from_each_of_its_lines(line: int) -> None:
    assert find_prose(MODULE, "python", line, line) == COMMENT


@pytest.mark.parametrize("line", range(8, 15))
def test_a_function_without_a_body_is_found_from_its_head_and_its_docstring(line: int) -> None:
    assert find_prose(MODULE, "python", line, line) == DOCSTRING


@pytest.mark.parametrize("line", [0, 1, 2, 5, 7, 15, 16, 17, 18, 22, 25, 26, 99, -1])
def test_code_blank_lines_and_functions_with_a_body_are_no_request(line: int) -> None:
    assert find_prose(MODULE, "python", line, line) is None


@pytest.mark.parametrize(
    "above",
    ["#!/bin/sh", "# -*- coding: utf-8 -*-", "# pylint: disable=all", "#type: ignore", "# pragma: no cover", "# nosec"],
)
def test_a_line_for_tools_is_no_part_of_the_request_below_it(above: str) -> None:
    lines = [above, "# sort the names", ""]
    assert find_prose(lines, "python", 1, 1) == Prose(1, 1, "sort the names", "", docstring=False)
    assert find_prose(lines, "python", 0, 0) is None


def test_the_server_and_the_daemon_know_the_same_comments_for_tools() -> None:
    assert comments._FOR_TOOLS.pattern == _FOR_TOOLS.pattern


def test_code_goes_in_at_the_indentation_of_the_comment() -> None:
    prose = find_prose(MODULE, "python", 20, 20)
    assert prose is not None
    assert (prose.indentation, prose.text) == ("    ", "sort it")


def test_a_selection_has_to_lie_within_the_prose() -> None:
    assert find_prose(MODULE, "python", 3, 4) == COMMENT
    assert find_prose(MODULE, "python", 8, 12) == DOCSTRING
    assert find_prose(MODULE, "python", 3, 5) is None
    assert find_prose(MODULE, "python", 8, 16) is None


@pytest.mark.parametrize(
    ("language", "line"),
    [
        *(("go", "\t// add"), ("rust", "/// add"), ("lua", "-- add"), ("clojure", ";; add"), ("latex", "% add")),
        *(
            ("cs", "// add"),
            ("zsh", "# add"),
            ("make", "# add"),
            ("elixir", "# add"),
            ("ps1", "# add"),
            ("objc", "// add"),
        ),
    ],
)
def test_each_language_has_its_own_mark(language: str, line: str) -> None:
    prose = find_prose([line], language, 0, 0)
    assert prose is not None
    assert prose.text == "add"
    assert find_prose([line], "plaintext", 0, 0) is None


def test_tabs_and_windows_line_ends_are_kept_apart_from_the_prose() -> None:
    lines = split_lines("class A:\r\n\tdef f(self):\r\n\t\t'''Add\r\n\t\tone.'''\r\n")
    assert find_prose(lines, "python", 2, 2) == Prose(1, 3, "Add\none.", "\t\t", docstring=True)


def test_a_comment_mark_without_words_asks_for_nothing() -> None:
    assert find_prose(["#\n", "# \n"], "python", 0, 0) is None


@given(st.lists(st.text("#def fx():\"' \n\t😀", max_size=20).map(lambda text: text + "\n"), max_size=8))
def test_whatever_is_typed_the_prose_found_lies_around_the_line(texts: list[str]) -> None:
    lines = split_lines("".join(texts))
    for number in range(len(lines)):
        prose = find_prose(lines, "python", number, number)
        assert prose is None or prose.first <= number <= prose.last < len(lines)


def test_a_sentence_loses_the_marks_and_line_ends_of_a_comment_and_gets_them_back() -> None:
    assert strip_comment_marks("# sort\n  #  the list", "python") == "sort the list"
    assert strip_comment_marks("sort\r\nthe  list ", "python") == "sort the list"
    assert strip_comment_marks("# a heading", "markdown") == "# a heading"
    assert strip_comment_marks(" \n#\n", "python") == ""
    assert [as_comment("sort", language) for language in ("python", "go", "sql", "plaintext")] == [
        *("# sort", "// sort", "-- sort"),
        None,
    ]


@pytest.mark.parametrize(
    ("head", "text"), [("", "# sort"), ("    ", "# sort"), ("x = 1  ", "sort"), ("x ", "# a\n# b")]
)
def test_only_a_comment_behind_code_on_its_line_is_a_trailing_one(head: str, text: str) -> None:
    assert find_trailing_comment(head, text, "sort", "python", 3) is None


def test_code_for_a_trailing_comment_has_the_indentation_of_its_line() -> None:
    assert find_trailing_comment("\tx = 1 ", "# sort", "sort", "python", 3) == Prose(
        3, 3, "sort", "\t", docstring=False
    )
