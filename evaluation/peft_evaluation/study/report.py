"""The report of a study: ``study.json``, and ``study.md`` and ``study.html`` made from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from peft_evaluation.report import charts, tables
from peft_evaluation.report.charts import IntervalChart
from peft_evaluation.report.markdown import lines
from peft_evaluation.report.page import ReportPages, render
from peft_evaluation.report.store import STUDIES, ReportFormat
from peft_evaluation.report.tables import Table, difference, duration, format_interval, format_value, size
from peft_evaluation.scorers.metrics import METRICS, WHOLES
from peft_evaluation.study.definition import BASELINE
from peft_evaluation.study.results import SCHEMA, StudyReport, StudyTable

NONE = "—"


def markdown_report(report: StudyReport) -> str:
    """Return the report as Markdown."""
    return "\n".join(_markdown_lines(report)) + "\n"


def html_report(report: StudyReport) -> str:
    """Return the report as one HTML document, which runs no script."""
    return render(
        "study.html.j2",
        package="peft_evaluation.study",
        title=title(report),
        notes=report.notes,
        overviews=overviews(report),
        parts=[
            _PagePart(table_title(table), table.warnings, _charts(table), tuple(_sections(table)))
            for table in report.tables
        ],
        facts=fact_table(report),
    )


STUDY = ReportFormat(
    file="study.json",
    content=StudyReport,
    schema=SCHEMA,
    field="tables",
    runs=STUDIES,
    run="a study",
    again="Give the study's command again",
)
STUDY_PAGES = ReportPages(STUDY, page="study.html", makers={"study.md": markdown_report, "study.html": html_report})


def write_report(folder: Path, report: StudyReport) -> None:
    """Write the report and the files for people into ``folder``."""
    STUDY.write(folder, report)
    STUDY_PAGES.write(folder, report)


@dataclass(frozen=True)
class _PagePart:
    heading: str
    notes: tuple[str, ...]
    charts: tuple[IntervalChart, ...]
    sections: tuple[tuple[str, Table], ...]


def title(report: StudyReport) -> str:
    """Return the title of a study's report."""
    return f"Study {report.name}"


def table_title(table: StudyTable) -> str:
    """Return the heading of one table."""
    return f"{table.model} on {table.data.name}, {table.data.items} questions"


def headline(table: StudyTable) -> str | None:
    """Return the metric to show where there is room for only one; None without a result."""
    return next((metric for metric in METRICS if any(metric in row.metrics for row in table.rows)), None)


def _markdown_lines(report: StudyReport) -> Iterator[str]:
    yield f"# {title(report)}"
    yield ""
    for note in report.notes:
        yield f"> {note}"
        yield ">"
    yield ""
    for heading, found in overviews(report):
        yield f"## {heading}"
        yield ""
        yield from lines(found)
    for table in report.tables:
        yield f"## {table_title(table)}"
        yield ""
        for warning in table.warnings:
            yield f"> {warning}"
            yield ">"
        yield ""
        for heading, found in _sections(table):
            yield f"### {heading}"
            yield ""
            yield from lines(found)
    yield "## How it was done"
    yield ""
    yield from lines(fact_table(report))


def overviews(report: StudyReport) -> list[tuple[str, Table]]:
    """Return, for several tables, one that has the first metric of each: a row for a model's row, a column for data."""
    if len(report.tables) < 2:
        return []
    columns = tuple(dict.fromkeys((table.data.name, headline(table)) for table in report.tables))
    cells = {
        (table.model, row.name, table.data.name): format_interval(metric, row.metrics[metric])
        for table in report.tables
        for row in table.rows
        if (metric := headline(table)) is not None and metric in row.metrics
    }
    heads = [f"{data}, {METRICS[metric].label if metric else NONE}" for data, metric in columns]
    rows = dict.fromkeys((table.model, row.name) for table in report.tables for row in table.rows)
    values = [(*row, *(cells.get((*row, data), NONE) for data, _ in columns)) for row in rows]
    return [("All models and data sets", Table(("model", "", *heads), tuple(values)))]


def _sections(table: StudyTable) -> Iterator[tuple[str, Table]]:
    yield "Quality, with 95 % intervals", quality_table(table)
    for group in dict.fromkeys(group for row in table.rows for group in row.groups):
        yield group, tables.quality({row.name: row.groups.get(group, {}) for row in table.rows})
    if any(row.by_seed for row in table.rows):
        yield "Each seed", seed_table(table)
    yield "Costs", cost_table(table)
    if table.comparisons:
        yield f"Compared with {BASELINE}, question by question", tables.comparisons(table.comparisons)
    if failed := [(row.name, "; ".join(row.failures)) for row in table.rows if row.failures]:
        yield "Without a result", Table(("", "reason"), tuple(failed))


def _charts(table: StudyTable) -> tuple[IntervalChart, ...]:
    figures = {row.name: row.metrics for row in table.rows}
    return tuple(
        charts.intervals(figures, metric, BASELINE)
        for metric in WHOLES
        if any(metric in measures for measures in figures.values())
    )


def quality_table(table: StudyTable) -> Table:
    """Return a row for each strategy and method, with all metrics."""
    return tables.quality({row.name: row.metrics for row in table.rows})


def seed_table(table: StudyTable) -> Table:
    """Return the headline metric of each seed."""
    metric, seeds = headline(table), dict.fromkeys(seed for row in table.rows for seed in row.by_seed)
    return Table(
        (METRICS[metric].label if metric else "", *(f"seed {seed}" for seed in seeds)),
        tuple(
            (
                row.name,
                *(
                    format_value(metric, row.by_seed[seed][metric])
                    if metric in row.by_seed.get(seed, {}) and metric is not None
                    else NONE
                    for seed in seeds
                ),
            )
            for row in table.rows
            if row.by_seed
        ),
    )


def cost_table(table: StudyTable) -> Table:
    """Return trained parameters, memory and time of each row."""
    return Table(
        (
            *("", "trained parameters", "adapter", "tuning: memory", "time", "steps (best)"),
            *("answering: memory", "time", "prompt tokens"),
        ),
        tuple(
            (
                row.name,
                *(
                    (
                        f"{row.tuning.trainable_parameters:,}",
                        size(row.tuning.adapter_bytes),
                        size(row.tuning.peak_memory_bytes),
                        duration(row.tuning.seconds),
                        f"{row.tuning.steps:.0f} ({row.tuning.best_step:.0f})",
                    )
                    if row.tuning
                    else (NONE,) * 5
                ),
                *(
                    (
                        size(row.answering.peak_memory_bytes),
                        duration(row.answering.seconds),
                        f"{row.answering.prompt_tokens:.0f}",
                    )
                    if row.answering
                    else (NONE,) * 3
                ),
            )
            for row in table.rows
        ),
    )


def verdicts(table: StudyTable) -> Sequence[str]:
    """Return a line for each comparison on the headline metric."""
    metric = headline(table)
    return [
        f"{each.strategy} against {each.baseline}: {each.judgement.value} ({METRICS[metric].label} {difference(each)})"
        for each in table.comparisons
        if metric is not None and each.metric == metric
    ]


def fact_table(report: StudyReport) -> Table:
    """Return what was done, on what, where."""
    machine = report.machine
    computes = f"{machine.processor}, {machine.cores} cores, {machine.accelerator or 'no accelerator'}"
    rows = [
        *(
            (
                table_title(table),
                f"model {table.model_sha256[:12]}; {table.data.part}, digest {table.data.digest[:12]}, "
                f"{table.data.licence}; training examples: {table.train}; "
                + ", ".join(f"{key}: {value}" for key, value in table.decoding.items())
                + f"; every answer: `peft-daemon report open {table.evaluation}`",
            )
            for table in report.tables
        ),
        *((f"tuning: {name}", value) for name, value in report.tuning.items()),
        ("machine", f"{computes}, {size(machine.memory_bytes)}, {machine.system}"),
        ("command", report.command),
        ("versions", ", ".join(f"{name} {version}" for name, version in report.versions.items())),
        ("when", report.created),
    ]
    return Table(("", ""), tuple(rows))
