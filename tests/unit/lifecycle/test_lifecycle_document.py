"""The document of promises and the tests that keep them name each other."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "daemon-lifecycle.md"
PROMISE = re.compile(r"^(\d+)\. \*\*", re.MULTILINE)
TEST = re.compile(r"\btest_promise_(\d\d)_\w+")


def names_in_code() -> dict[str, str]:
    """Test names with the file that holds them."""
    names: dict[str, str] = {}
    for folder in ("unit/core", "unit/lifecycle", "integration/lifecycle", "integration/engines"):
        for path in (ROOT / "tests" / folder).glob("test_*.py"):
            for match in re.finditer(r"^(?:async )?def (test_promise_\d\d_\w+)", path.read_text(), re.MULTILINE):
                names[match.group(1)] = path.name
    return names


def promises() -> dict[int, str]:
    """The numbered promises of the document, each with its whole text."""
    text = DOCUMENT.read_text()
    starts = [(int(match.group(1)), match.start()) for match in PROMISE.finditer(text)]
    ends = [start for _, start in starts[1:]] + [len(text)]
    return {number: text[start:end] for (number, start), end in zip(starts, ends, strict=True)}


def test_promises_are_numbered_without_gaps() -> None:
    assert list(promises()) == list(range(1, len(promises()) + 1))


def test_every_promise_names_a_test_that_exists_and_carries_its_number() -> None:
    known = names_in_code()
    for number, text in promises().items():
        named = list(TEST.finditer(text))
        assert named, f"promise {number} names no test"
        for match in named:
            assert match.group() in known, f"promise {number} names {match.group()}, which does not exist"
            assert int(match.group(1)) == number, f"promise {number} names {match.group()}"


def test_every_test_of_a_promise_belongs_to_one_in_the_document() -> None:
    by_number = defaultdict(list)
    for name in names_in_code():
        by_number[int(TEST.fullmatch(name).group(1))].append(name)
    assert sorted(by_number) == sorted(promises())
