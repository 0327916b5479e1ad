"""How far a completion may reach, decided from the code around the cursor."""

from __future__ import annotations

import pytest

from peft_core.code.document import Document
from peft_daemon.completion.cursor import Extent, block_indentation, opens_block


def at(source: str) -> Document:
    """The document with the cursor at ``‸``."""
    prefix, _, suffix = source.partition("‸")
    return Document(prefix, suffix)


@pytest.mark.parametrize(
    ("source", "extent"),
    [
        ("def f(x):\n    ‸\n", Extent.BLOCK),
        ("‸", Extent.BLOCK),
        ("def f(x):‸\n", Extent.STATEMENT),
        ("x = ‸\n", Extent.STATEMENT),
        ("x = f(‸\n", Extent.STATEMENT),
        ("x = [\n    1,\n    ‸\n]\n", Extent.STATEMENT),
        ("x = f(‸)\n", Extent.LINE),
        ("def f(a, ‸):\n", Extent.LINE),
        ("x = ‸ + 1\n", Extent.LINE),
        ("# parse ‸\n", Extent.LINE),
        ("if ‸\n    x()\n", Extent.LINE),
        ("if ‸\nx()\n", Extent.STATEMENT),
        ("x = '‸\n", Extent.LINE),
        ("x = '‸'\n", Extent.LINE),
        ('def f():\n    """‸\n', Extent.STRING),
        ('def f():\n    """‸"""\n', Extent.LINE),
        ('def f():\n    """Do.\n\n    ‸\n    """\n', Extent.STRING),
    ],
)
def test_extent(source: str, extent: Extent) -> None:
    assert Extent.at_cursor(at(source)) is extent


@pytest.mark.parametrize(
    ("source", "single_line", "extent"),
    [
        ("def f(x):\n    ‸\n", True, Extent.LINE),
        ("x = ‸\n", False, Extent.BLOCK),
        ("x = f(‸)\n", False, Extent.STATEMENT),
        ("# a ‸\n", False, Extent.LINE),
    ],
)
def test_what_the_request_says_overrules_what_is_seen(source: str, single_line: bool, extent: Extent) -> None:
    assert Extent.at_cursor(at(source), single_line) is extent


@pytest.mark.parametrize(
    ("source", "closed"),
    [
        ("f(‸)\n", (")",)),
        ('f("‸")\n', ('"', ")")),
        ("f(‸\n", ()),
        ("f(\n    ‸\n)\n", (")",)),
        ("f([‸)\n", (")",)),
        ("x = f(‸\ndef g(a):\n", ()),
        ('def f():\n    """‸\n    return 1\n', ()),
        ('def f():\n    """‸"""\n    return 1\n', ('"""',)),
        ('def f():\n    """‸\n\n\ndef g():\n    """Doc."""\n', ()),
    ],
)
def test_what_the_text_after_the_cursor_closes(source: str, closed: tuple[str, ...]) -> None:
    found = at(source).closed_after
    assert found == closed if source != "f([‸)\n" else found[-1:] == closed


@pytest.mark.parametrize(
    ("source", "floor"),
    [
        ("def f():\n    ‸", 4),
        ("def f():\n‸", 1),
        ("    x = ‸", 4),
        ("if a:\n    b\n‸", 0),
        ("def f():\n    x = 1\n\n    ‸", 4),
        ("\tif a:\n\t\t‸", 16),
    ],
)
def test_the_indentation_that_belongs_to_the_block(source: str, floor: int) -> None:
    assert block_indentation(at(source)) == floor


@pytest.mark.parametrize(
    ("line", "language", "opens"),
    [
        ("if x:", "python", True),
        ("if x:  # why", "python", True),
        ("x = {'a': 1}", "python", False),
        ("d = ':'", "python", False),
        ("# note:", "python", False),
        ("if (x) {", "javascript", True),
        ("f(x);", "javascript", False),
    ],
)
def test_lines_that_open_a_block(line: str, language: str, opens: bool) -> None:
    assert opens_block(line, language) is opens


def test_a_huge_document_is_scanned_near_the_cursor_only() -> None:
    source = "x = 1\n" * 300_000 + "print("
    assert Document(source, ")\n").closed_after == (")",)
