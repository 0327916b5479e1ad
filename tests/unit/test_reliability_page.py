"""docs/reliability.md names only tests that exist, and one in each row."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| seen |")]
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def test_every_row_names_tests_that_exist() -> None:
    assert len(ROWS) > 40
    for row in ROWS:
        named = TEST.findall(row.split("|")[3])
        assert named, row
        for path, name in named:
            source = (ROOT / "tests" / path).read_text(encoding="utf-8")
            assert re.search(rf"^(?:async )?def {name}\(", source, re.MULTILINE), f"{path}::{name}"
