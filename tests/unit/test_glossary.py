"""The glossary names what there is, and gives each term one meaning."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
TERMS = [(term, meaning) for term, meaning in ROWS if (term, meaning) != ("term", "meaning")]


def class_names() -> set[str]:
    names = set()
    for folder in ("core", "daemon", "tuning", "evaluation", "lsp", "cli"):
        for file in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    return names


def test_each_term_has_one_meaning() -> None:
    assert len(TERMS) > 50
    assert [term for term, count in Counter(term for term, _ in TERMS).items() if count > 1] == []


def test_the_classes_it_names_are_there() -> None:
    named = set(re.findall(r"`([A-Z][A-Za-z]+)`", PAGE))
    assert len(named) > 30
    assert named - class_names() == set()
