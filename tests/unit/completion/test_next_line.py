"""Where the next suggestion will be wanted once Enter is pressed."""

from __future__ import annotations

import pytest

from peft_core.code.document import Document
from peft_daemon.completion.prefetch import typed_for_next_line


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f():\n    x = 1‸\n", "\n    "),
        ("def f():‸\n", "\n    "),
        ("def f():\n\tif x:‸\n", "\n\t\t"),
        ("x = 1  # one:‸\n", None),
        ("def f():\n    return x‸\n", None),
        ("x = f(‸\n", None),
        ("x = f(‸)\n", None),
        ("    ‸\n", None),
        ('x = """a‸\n', None),
        ("# a thought‸\n", None),
    ],
)
def test_enter(source: str, expected: str | None) -> None:
    prefix, _, suffix = source.partition("‸")
    assert typed_for_next_line(Document(prefix, suffix)) == expected
