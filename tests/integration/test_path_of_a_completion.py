"""The path that a newcomer follows first stays short; ``make shape`` prints this one and two others."""

from __future__ import annotations

from shape.paths import measured

MAX_FILES = 33
"""The learner among them: it gives way to each request, and notes where what was shown belongs."""
MAX_VALUES = 11


def test_a_completion_passes_through_few_files_and_value_types() -> None:
    path = measured("completion")
    assert len(path.files) <= MAX_FILES, path.files
    assert len(path.values) <= MAX_VALUES, path.values
