"""Configurations that users are given: they can be read, start the language server, and are on the page of editors."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/editors"
FILES = sorted(path for path in EXAMPLES.rglob("*") if path.is_file())
PAGE = (ROOT / "docs/editors.md").read_text()


def names(example: Path) -> str:
    return example.relative_to(EXAMPLES).as_posix()


@pytest.mark.parametrize("example", FILES, ids=names)
def test_each_is_told_on_the_page_of_editors(example: Path) -> None:
    assert f"../examples/editors/{names(example)}" in PAGE


@pytest.mark.parametrize("example", [path for path in FILES if path.suffix in (".json", ".toml")], ids=names)
def test_each_can_be_read_and_starts_the_language_server_or_names_the_daemon(example: Path) -> None:
    text = example.read_text()
    read: dict[str, Any] = tomllib.loads(text) if example.suffix == ".toml" else json.loads(text)
    words = (
        json.dumps(read)
        .replace('"args": ["lsp"]', "peft-daemon lsp")
        .replace('["peft-daemon", "lsp"]', "peft-daemon lsp")
    )
    assert "peft-daemon lsp" in words or "127.0.0.1" in words
