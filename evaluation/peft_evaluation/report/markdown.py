"""Make ``report.md``: all results and comparisons, with a few samples that a strategy gains or loses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from peft_evaluation.report import tables
from peft_evaluation.report.schema import Report, ReportedSample
from peft_evaluation.report.tables import Table
from peft_evaluation.scorers.metrics import METRICS

MAX_SAMPLES_SHOWN = 3
"""Samples gained, and samples lost, that are shown for each strategy."""


def markdown(report: Report) -> str:
    """Return the report as Markdown."""
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
    """Return the title of a report."""
    return f"{report.data.name}: {len(report.strategies)} strategies on {report.data.items} items"


def _quality(report: Report) -> Iterator[str]:
    yield "## Quality"
    yield ""
    yield "With 95 % intervals."
    yield ""
    yield from lines(tables.quality({each.id: each.metrics for each in report.strategies}))
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
            for item in items[:MAX_SAMPLES_SHOWN]:
                yield f"{found.strategy} {what}: {one_line(item.question)}"
                yield ""
                yield "````python"
                yield f"# reference\n{item.reference.strip()}"
                for name in (report.baseline, found.strategy):
                    yield f"# {name}\n{first_text(item, name).strip()}"
                yield "````"
                yield ""


def benchmark(
    title: str, *, notes: Iterable[str], about: str, policies: Mapping[str, str], sections: Iterable[tuple[str, Table]]
) -> str:
    """Return a benchmark's report: ``about`` says where figures are explained, ``policies`` what each of them is."""
    text = [f"# {title}", ""]
    for note in notes:
        text += [f"> {note}", ">"]
    text += ["", about, "", *(f"- `{name}`: {what}" for name, what in policies.items()), ""]
    for heading, table in sections:
        text += [f"## {heading}", "", *lines(table)]
    return "\n".join(text) + "\n"


def one_line(text: str) -> str:
    """Return ``text`` on one line and shortened, for a heading or a table cell."""
    return " ".join(text.split())[:160].replace("|", "\\|")


def lines(table: Table) -> Iterator[str]:
    """Yield the lines of a Markdown table, and an empty line."""
    yield f"| {' | '.join(table.head)} |"
    yield f"|{'---|' * len(table.head)}"
    for row in table.rows:
        yield f"| {' | '.join(cell.replace(chr(10), ' ') for cell in row)} |"
    yield ""


@dataclass(frozen=True)
class Flips:
    """The items that one strategy gains and loses compared with the baseline, in the order of the items."""

    strategy: str
    gained: tuple[ReportedSample, ...]
    lost: tuple[ReportedSample, ...]


def headline(report: Report) -> str:
    """Return the metric to show where there is room for only one: the first that the baseline has."""
    return next(metric for metric in METRICS if metric in report.strategies[0].metrics)


def flips(report: Report) -> Sequence[Flips]:
    """Return the flips of every strategy but the baseline."""
    metric = headline(report)
    found = []
    for each in report.strategies:
        if each.id == report.baseline:
            continue
        change = {item.id: flip(item, each.id, report.baseline, metric) for item in report.items}
        found.append(
            Flips(
                each.id,
                tuple(item for item in report.items if change[item.id] > 0),
                tuple(item for item in report.items if change[item.id] < 0),
            )
        )
    return found


def flip(item: ReportedSample, strategy: str, baseline: str, metric: str) -> float:
    """Return a strategy's score for an item minus the baseline's; 0 if one has no score."""
    ours, theirs = (value(item, name, metric) for name in (strategy, baseline))
    return 0.0 if ours is None or theirs is None else ours - theirs


def value(item: ReportedSample, strategy: str, metric: str) -> float | None:
    """Return the mean score over a strategy's seeds; None if it has none."""
    found = [a.scores[metric] for a in item.answers if a.strategy == strategy and metric in a.scores]
    return fmean(found) if found else None


def first_text(item: ReportedSample, strategy: str) -> str:
    """Return the best answer of the first seed; empty if there is none."""
    return next((a.texts[0] for a in item.answers if a.strategy == strategy and a.texts), "")
