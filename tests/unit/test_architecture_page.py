"""ARCHITECTURE.md and the recipes of CONTRIBUTING.md name only what exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE[PAGE.index("## Where to add what") :].splitlines() if line.startswith("| ")][1:]
CODE = [span for row in ROWS for span in re.findall(r"`([^`]+)`", row.split("|")[2])]
RECIPES = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DEFINED = re.compile(r"^ *(?:class|def|async def) (\w+)|^([A-Z]\w*)\b[^=\n]* = ", re.MULTILINE)


def test_every_file_and_folder_it_names_exists() -> None:
    paths = [span for span in CODE if "/" in span]
    assert len(paths) > 40
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_module_the_page_names_exists() -> None:
    modules = set(re.findall(r"`([\w/]+\.py)`", PAGE))
    assert len(modules) > 40
    files = [f"/{file.relative_to(ROOT)}" for file in ROOT.rglob("*.py") if ".venv" not in file.parts]
    assert {name for name in modules if not any(file.endswith(f"/{name}") for file in files)} == set()


def test_every_file_and_test_of_the_recipes_exists() -> None:
    spans = re.findall(r"`([^`\n]+)`", RECIPES[RECIPES.index("## Add a tuning method") :])
    paths = [span for span in spans if span.count("/") > 1]
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []
    tests = {span for span in spans if span.startswith("test_") and span.isidentifier()}
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py")]
    assert {name for name in tests if not any(f"def {name}(" in source for source in sources)} == set()


def test_every_class_and_function_it_names_exists() -> None:
    names = {span for span in CODE if span.isidentifier()}
    assert len(names) > 10
    folders = ("core", "daemon", "tuning", "evaluation", "lsp", "cli", "tests")
    files = (file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    assert (
        names - {name for file in files for match in DEFINED.findall(file.read_text("utf-8")) for name in match}
        == set()
    )
