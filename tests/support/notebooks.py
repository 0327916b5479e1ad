"""Notebooks as files, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_notebook(file: Path, *cells: tuple[str, str]) -> None:
    """Write a Python notebook of cells, each with its kind (``code``, ``markdown``) and its text."""
    outputs: dict[str, Any] = {"outputs": [], "execution_count": None}
    written = [
        {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": text.splitlines(keepends=True)}
        | (outputs if kind == "code" else {})
        for number, (kind, text) in enumerate(cells)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"language_info": {"name": "python"}, "kernelspec": kernel}
    file.write_text(json.dumps({"cells": written, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))


def sources(file: Path) -> list[str]:
    """The texts of a notebook's cells."""
    return ["".join(each["source"]) for each in json.loads(file.read_text())["cells"]]
