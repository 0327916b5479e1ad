"""The files for people beside ``report.json``, which they are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from peft_core import files
from peft_evaluation.reports.html import html
from peft_evaluation.reports.markdown import markdown
from peft_evaluation.results import Report

KINDS: Mapping[str, Callable[[Report], str]] = {"report.md": markdown, "report.html": html}


def write(folder: Path, report: Report) -> None:
    """Write every kind into ``folder``."""
    for name, make in KINDS.items():
        files.write_durable(folder / name, make(report).encode())
