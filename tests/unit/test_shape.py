"""The product keeps a shape that a newcomer can find the way in; ``make shape`` prints more of it."""

from __future__ import annotations

from shape.source import duplicate_names, files, median_lines

MAX_FILES = 365
MIN_MEDIAN_LINES = 100
MAX_LINES = 450
MAX_DUPLICATE_NAMES = 40
"""Bounds that are drawn tighter as the product gets there: 260 files, 130 lines, no name twice."""


def test_files_are_few_and_none_is_long() -> None:
    every = files()
    assert len(every) <= MAX_FILES
    assert median_lines(every) >= MIN_MEDIAN_LINES
    assert not [file for file in every if file.lines > MAX_LINES]


def test_a_name_of_a_class_means_one_thing() -> None:
    found = duplicate_names(files())
    assert len(found) <= MAX_DUPLICATE_NAMES, found
