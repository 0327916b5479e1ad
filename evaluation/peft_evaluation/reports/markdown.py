"""``report.md``: the whole comparison for a terminal or a code host, without the items."""

from __future__ import annotations

from collections.abc import Iterator

from peft_evaluation.metrics.catalogue import METRICS
from peft_evaluation.reports import tables
from peft_evaluation.reports.flips import first_text, flips, headline
from peft_evaluation.reports.tables import Table
from peft_evaluation.results import Report

SHOWN = 3
"""Items gained and lost that are shown for each strategy."""


def markdown(report: Report) -> str:
    """The report as Markdown."""
    return "\n".join((*_head(report), *_quality(report), *_comparisons(report), *_flips(report)))


def _head(report: Report) -> Iterator[str]:
    yield f"# {title(report)}"
    yield ""
    yield from lines(tables.facts(report))
    for note in (*report.warnings, *report.data.notes):
        yield f"> {note}"
        yield ">"
    yield ""


def title(report: Report) -> str:
    """For a heading."""
    return f"{report.data.name}: {len(report.strategies)} strategies on {report.data.items} items"


def _quality(report: Report) -> Iterator[str]:
    yield "## Quality"
    yield ""
    yield "With 95 % intervals."
    yield ""
    yield from lines(tables.quality(report.strategies, {each.id: each.metrics for each in report.strategies}))
    for heading, table in {**tables.of_parts(report), **tables.by_group(report)}.items():
        yield f"### {heading}"
        yield ""
        yield from lines(table)
    yield "## Costs"
    yield ""
    yield from lines(tables.costs(report))


def _comparisons(report: Report) -> Iterator[str]:
    if not report.comparisons:
        return
    yield f"## Compared with {report.baseline}"
    yield ""
    yield "Item by item; p adjusted for the number of strategies (Benjamini and Hochberg)."
    yield ""
    yield from lines(tables.comparisons(report.comparisons))


def _flips(report: Report) -> Iterator[str]:
    if len(report.strategies) < 2:
        return
    yield f"## Some items gained and lost ({METRICS[headline(report)].label})"
    yield ""
    for found in flips(report):
        for what, items in (("gained", found.gained), ("lost", found.lost)):
            for item in items[:SHOWN]:
                yield f"{found.strategy} {what}: {one_line(item.question)}"
                yield ""
                yield "````python"
                yield f"# reference\n{item.reference.strip()}"
                for name in (report.baseline, found.strategy):
                    yield f"# {name}\n{first_text(item, name).strip()}"
                yield "````"
                yield ""


def one_line(text: str) -> str:
    """For a heading or a table cell."""
    return " ".join(text.split())[:160].replace("|", "\\|")


def lines(table: Table) -> Iterator[str]:
    """A Markdown table and an empty line."""
    yield f"| {' | '.join(table.head)} |"
    yield f"|{'---|' * len(table.head)}"
    for row in table.rows:
        yield f"| {' | '.join(cell.replace(chr(10), ' ') for cell in row)} |"
    yield ""
