"""Where a sentence asks for code, and where it does not."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.api_types import CompleteRequest, Task
from peft_core.code.document import Document
from peft_core.errors import InvalidInput
from peft_daemon.completion.cursor import Intent, asks_for_code, find_intent, intent_at_cursor

STDLIB = Path(textwrap.__file__).parent
FILES = ("textwrap.py", "shlex.py", "difflib.py", "csv.py", "zipfile.py", "tarfile.py", "subprocess.py", "smtplib.py")


def at(source: str, language: str = "python") -> Intent | None:
    """The intent at ``‸``."""
    prefix, _, suffix = source.partition("‸")
    return intent_at_cursor(Document(prefix, suffix, language=language))


@pytest.mark.parametrize(
    ("source", "sentence", "indentation", "lead"),
    [
        ("# parse an ISO date from s\n‸", "parse an ISO date from s", "", ""),
        ("# parse an ISO date from s‸\n", "parse an ISO date from s", "", "\n"),
        ("def f(s):\n    # parse an ISO date from s\n    ‸\n\n\nx = 1\n", "parse an ISO date from s", "    ", ""),
        ("def f(s):\n    # Parse an ISO date\n    # from s.‸\n", "Parse an ISO date from s.", "    ", "\n    "),
        ("def f(s):\n    # sort names by length\n‸\n", "sort names by length", "    ", ""),
        ("x = 1\n# TODO: parse an ISO date\n‸", "parse an ISO date", "", ""),
        ("# a function that adds two numbers\n‸", "a function that adds two numbers", "", ""),
        ('def f(s):\n    """Parse an ISO date from s."""\n    ‸\n', "def f(s): Parse an ISO date from s.", "    ", ""),
        ('def f(s):\n    """Parse an ISO date from s."""‸\n', "def f(s): Parse an ISO date from s.", "    ", "\n    "),
        (
            'class A:\n    def f(\n        self, s: str = "a:b"\n    ) -> date:\n        """Parse s\n'
            '        at once.\n\n        Args: s\n        """\n        ‸\n\n    def g(self):\n        pass\n',
            'def f( self, s: str = "a:b" ) -> date: Parse s at once.',
            "        ",
            "",
        ),
    ],
)  # fmt: skip
def test_a_request_is_found(source: str, sentence: str, indentation: str, lead: str) -> None:
    alone = source.startswith("#")
    assert at(source) == Intent(sentence, indentation, lead, alone)


@pytest.mark.parametrize(
    ("above", "language"),
    [
        ("#!/usr/bin/env python3\n", "python"),
        ("#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\n", "python"),
        ("# coding=utf-8\n", "python"),
        ("# pylint: disable=all\n", "python"),
        ("# %%\n", "python"),
        ("# %matplotlib inline\n", "python"),
        ("# SPDX-License-Identifier: MIT\n", "python"),
        ("#!/bin/sh\n", "shellscript"),
        ("# frozen_string_literal: true\n", "ruby"),
        ("// eslint-disable-next-line no-console\n", "javascript"),
        ("// @ts-check\n", "typescript"),
        ("//go:build linux\n", "go"),
    ],
)
def test_a_line_for_tools_above_a_request_does_not_hide_it(above: str, language: str) -> None:
    mark = "#" if above.startswith("#") else "//"
    for below in ("", "\n\nx = 1\n"):
        found = at(f"{above}{mark} sort the names\n{mark} by their length\n‸{below}", language)
        assert found is not None and found.sentence == "sort the names by their length"


def test_a_request_may_go_on_with_the_name_of_a_tool() -> None:
    found = at("# sort the fields by their\n# type and their name\n‸")
    assert found is not None and found.sentence == "sort the fields by their type and their name"


def test_a_request_is_found_in_other_languages() -> None:
    found = at("// sort the array by name\n‸", "javascript")
    assert found is not None and found.sentence == "sort the array by name"
    assert at("// sort the array by name\n‸") is None


@pytest.mark.parametrize(
    "source",
    [
        "# Copyright 2024 The Authors\n‸",
        "# Licensed under the Apache License\n‸",
        "#!/usr/bin/env python3\n‸",
        "# -*- coding: utf-8 -*-\n‸",
        "# type: ignore\n‸",
        "# noqa: sort the imports later\n‸",
        "# fmt: off\n‸",
        "# pylint: disable=all\n‸",
        "# ------------------------\n‸",
        "# Helpers\n‸",
        "# Public interface\n‸",
        "# The cursor is always inside the text here\n‸",
        "# This module does many things\n‸\nimport os\n",
        "# x = parse(date)\n‸",
        "# return x\n‸",
        "# print('hello', x)\n‸",
        "# import os\n‸",
        "# for x in range(3):\n‸",
        "# if a or b:\n‸",
        "# parse an ISO date from s‸\nd = date.fromisoformat(s)\n",
        "    # parse an ISO date from s\n    ‸\n    d = date.fromisoformat(s)\n",
        "# parse an ISO date from s\n\n‸",
        "# parse an ISO date from s\nx = 1\n‸",
        "x = 1  # parse an ISO date from s‸\n",
        "x = '''\n# parse an ISO date from s\n‸\n'''",
        "# parse an ISO ‸date from s",
        "    # parse an ISO date from s\n  ‸",
        'def f(s):\n    """Parse an ISO date from s."""\n    ‸\n    return 1\n',
        'def f(s):\n    """Parse an ISO date from s."""\n    ‸\n\n    return 1\n',
        'def f(s):\n    """Parse."""\n    ‸\n',
        'class A:\n    """Parse an ISO date from s."""\n    ‸\n',
        'x = """Parse an ISO date from s."""\n‸\n',
        'def f(s):\n    x = """Parse an ISO date from s."""\n    ‸\n',
        "def f(s):\n    ‸\n",
        "‸",
        "# " + "parse an ISO date, and then another one,\n# " * 8 + "\n‸",
    ],
)
def test_nothing_is_asked_for(source: str) -> None:
    assert at(source) is None


@pytest.mark.parametrize(
    ("comment", "asks"),
    [
        ("check whether the path exists", True),
        ("Compute the mean of all values", True),
        ("please sort the list", True),
        ("function to reverse a string", True),
        ("the function above is slow", False),
        ("see RFC 2045 for this", False),
        ("NOTE: sort is stable", False),
        ("values are sorted here", False),
        ("a == b and c == d", False),
        ("get(x)", False),
        ("https://example.org/some/page", False),
        ("", False),
    ],
)
def test_requests_are_told_from_descriptions(comment: str, asks: bool) -> None:
    assert asks_for_code(comment) is asks


@pytest.mark.parametrize("name", FILES)
def test_no_comment_or_docstring_of_finished_code_asks_for_code(name: str) -> None:
    source = (STDLIB / name).read_text(encoding="utf-8")
    found = []
    position = 0
    for line in source.split("\n"):
        position += len(line) + 1
        if line.strip().startswith("#") or line.rstrip().endswith(('"""', "'''")):
            hit = intent_at_cursor(Document(source[: position - 1], source[position - 1 :]))
            found += [hit] if hit else []
    # What remains are comments that stand alone before a blank line.
    assert len(found) <= 1, found


@given(st.text(alphabet="#ab \n\t\"'():=defTODO", max_size=80), st.text(alphabet="#ab \n\"'", max_size=20))
def test_any_document_can_be_looked_at(prefix: str, suffix: str) -> None:
    intent_at_cursor(Document(prefix, suffix))


def test_the_request_decides_when_it_says_what_it_wants() -> None:
    below_comment = Document("# sort the list by name\n")
    assert find_intent(CompleteRequest(task=Task.FILL), below_comment) is None
    given = find_intent(CompleteRequest(intent=" sort it "), Document("x"))
    assert given == Intent("sort it", given=True)
    assert given.answered_by is Task.INTENT


def test_otherwise_the_place_decides() -> None:
    found = find_intent(CompleteRequest(), Document("# sort the list by name\n"))
    assert found is not None
    assert (found.sentence, found.given) == ("sort the list by name", False)
    assert find_intent(CompleteRequest(), Document("x = ")) is None


def test_asking_for_code_without_a_sentence_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no sentence"):
        find_intent(CompleteRequest(task=Task.INTENT), Document("x = "))
