"""``bench.json``, and the files for people made from it: ``bench.md``, and ``bench.html``, which fetches nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from peft_core import files
from peft_evaluation.reports.markdown import lines
from peft_evaluation.reports.tables import Table
from peft_evaluation.typing import tables
from peft_evaluation.typing.chart import chart
from peft_evaluation.typing.results import BenchReport

JSON, MARKDOWN, HTML = "bench.json", "bench.md", "bench.html"
TITLE = "Typing benchmark"


def write(folder: Path, report: BenchReport) -> None:
    """Write all three into ``folder``."""
    files.write(folder / JSON, msgspec.json.format(msgspec.json.encode(report), indent=1))
    files.write(folder / MARKDOWN, markdown(report).encode())
    files.write(folder / HTML, html(report).encode())


def markdown(report: BenchReport) -> str:
    """The report for a terminal or a code host."""
    return "\n".join(_markdown(report)) + "\n"


def html(report: BenchReport) -> str:
    """The report as one HTML document."""
    style = _style()
    return (
        _environment()
        .get_template("bench.html.j2")
        .render(
            title=TITLE,
            # It is this package's own, and named in the policy by what it is.
            style=Markup(style),  # noqa: S704
            style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
            notes=report.notes,
            chart=chart(report),
            sections=_sections(report),
        )
    )


def _sections(report: BenchReport) -> list[tuple[str, Table]]:
    sections = [("Goals", tables.goals(report)), ("Figures", tables.policies(report))]
    if report.ratios:
        sections.append(("Ours to the better re-created policy", tables.ratios(report)))
    if report.comparisons:
        sections.append(("Quality, line by line", tables.comparisons(report)))
    return [*sections, ("Traces", tables.traces(report)), ("How it was done", tables.facts(report))]


def _markdown(report: BenchReport) -> Iterator[str]:
    yield f"# {TITLE}"
    yield ""
    for note in report.notes:
        yield f"> {note}"
        yield ">"
    yield ""
    yield "docs/typing-benchmark.md says what each figure means."
    yield ""
    for name, each in report.policies.items():
        yield f"- `{name}`: {each.what}"
    yield ""
    for heading, table in _sections(report):
        yield f"## {heading}"
        yield ""
        yield from lines(table)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("peft_evaluation.typing"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )


@cache
def _style() -> str:
    """The evaluation reports' own, and the colours of the curves."""
    shared = resources.files("peft_evaluation.reports").joinpath("templates", "report.css").read_text(encoding="utf-8")
    return shared + resources.files("peft_evaluation.typing").joinpath("templates", "bench.css").read_text(
        encoding="utf-8"
    )
