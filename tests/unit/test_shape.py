"""The product keeps a shape that a newcomer can find the way in; ``make shape`` prints more of it."""

from __future__ import annotations

from shape.source import duplicate_names, files, median_lines

MAX_FILES = 400
MIN_MEDIAN_LINES = 130
MAX_LINES = 450


def test_files_are_few_and_none_is_long() -> None:
    every = files()
    assert len(every) <= MAX_FILES
    assert median_lines(every) >= MIN_MEDIAN_LINES
    assert not [file for file in every if file.lines > MAX_LINES]


def test_a_name_of_a_class_means_one_thing() -> None:
    assert duplicate_names(files()) == {}
