"""The path that a newcomer follows first stays short; ``make shape`` prints this one and two others."""

from __future__ import annotations

from shape.paths import measured

MAX_FILES = 38
"""Among them the learner, which gives way to each request and notes where what was shown belongs, and two tables of
languages: their names in editors, and how each writes comments and literals. Three say how sure the model is, how sure
it must be, and which part decided."""
MAX_VALUES = 12
"""Among them the decision that is noted for `peft-daemon why`."""


def test_a_completion_passes_through_few_files_and_value_types() -> None:
    path = measured("completion")
    assert len(path.files) <= MAX_FILES, path.files
    assert len(path.values) <= MAX_VALUES, path.values
