"""docs/reliability.md and docs/threat-model.md name only tests that exist, and one in each row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
CLIENT_TEST = re.compile(r"`(vscode-client/src/[\w/]+\.test\.ts)`")
PAGES = {"reliability.md": (("seen", "experiment"), 2, 40), "threat-model.md": (("attack",), 2, 40)}
"""By page: titles of first columns, the number of the column of tests, and how many rows there are at least."""


@pytest.mark.parametrize("name", PAGES)
def test_every_row_names_tests_that_exist(name: str) -> None:
    titles, column, least = PAGES[name]
    heads = tuple(f"| {title} |" for title in titles)
    lines = (ROOT / "docs" / name).read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith(heads)]
    assert len(rows) >= least
    for row in rows:
        cell = row.split("|")[column + 1]
        named = TEST.findall(cell)
        assert named or CLIENT_TEST.findall(cell), row
        for path, test in named:
            source = (ROOT / "tests" / path).read_text(encoding="utf-8")
            assert re.search(rf"^(?:async )?def {test}\(", source, re.MULTILINE), f"{path}::{test}"
        for path in CLIENT_TEST.findall(cell):
            assert (ROOT / path).is_file(), path
