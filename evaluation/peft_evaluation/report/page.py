"""The frame, style and script that all pages have, and the files that are made from each kind of report.

A page is one file that fetches nothing. Values reach it through Jinja's escaping alone; its content policy names the
style and the script, if it has one, by their hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Generic

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from peft_core import files
from peft_evaluation.report.store import R, ReportFormat

FRAME = "peft_evaluation.report"
"""The package whose templates have what all pages share."""


def render(template: str, *, package: str = FRAME, script: str = "", **values: object) -> str:
    """Make a page from ``template`` of ``package``, which fills in the frame; ``script`` names the script it runs."""
    style, code = _asset("report.css"), _asset(script) if script else ""
    return (
        _environment(package)
        .get_template(template)
        .render(
            # Both are this package's own, and named in the policy by what they are.
            style=Markup(style),  # noqa: S704
            script=Markup(code),  # noqa: S704
            style_hash=_hash(style),
            script_hash=_hash(code),
            **values,
        )
    )


@cache
def _environment(package: str) -> Environment:
    return Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(FRAME)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )


@cache
def _asset(name: str) -> str:
    return resources.files(FRAME).joinpath("templates", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@dataclass(frozen=True)
class ReportPages(Generic[R]):
    """The files for people that are made from one kind of report."""

    format: ReportFormat[R]
    page: str
    """The name of the HTML page among ``makers``."""
    makers: Mapping[str, Callable[[R], str]]
    """By file name."""

    def write(self, folder: Path, report: R) -> None:
        """Write every file into ``folder``."""
        for name, make in self.makers.items():
            files.write_durable(folder / name, make(report).encode())

    def remake(self, location: Path) -> Path:
        """Write every file beside the report at ``location``; returns the page's path. Raises what reading raises."""
        report = self.format.read(location)
        folder = location if location.is_dir() else location.parent
        self.write(folder, report)
        return folder / self.page
