"""The report of the benchmark of next edits: ``edits.json``, and ``edits.md`` and ``edits.html`` made from it."""

from __future__ import annotations

from pathlib import Path

from peft_evaluation.edit_benchmark.figures import FIGURES
from peft_evaluation.edit_benchmark.results import SCHEMA, EditBenchReport, EditFigures
from peft_evaluation.edit_benchmark.scenarios import AnswerDistance, ScenarioKind
from peft_evaluation.report import charts
from peft_evaluation.report.markdown import benchmark
from peft_evaluation.report.page import ReportPages, render
from peft_evaluation.report.schema import Measure
from peft_evaluation.report.store import ReportFormat
from peft_evaluation.report.tables import Table, benchmark_facts, probability
from peft_evaluation.scorers.metrics import MetricKind

TITLE = "Benchmark of next edits"
_BY = {
    "distance": ("Where an edit is right, by its distance to the cursor", ("exact", "of_commit", "shown")),
    "kind": ("Where none is right, by the reason", ("quiet",)),
    "language": ("By language", ("exact", "of_commit", "quiet")),
    "repository": ("By repository", ("exact", "of_commit", "quiet")),
}
"""The tables of groups: their headings and figures."""
_WORDS = {
    AnswerDistance.SAME_LINE: "same line",
    AnswerDistance.NEAR: "within 10 lines",
    AnswerDistance.FAR: "further away",
    ScenarioKind.FINISHED: "work finished",
    ScenarioKind.UNRELATED: "unrelated place",
    ScenarioKind.HALF_WORD: "half-typed word",
}


def write_report(folder: Path, report: EditBenchReport) -> None:
    """Write the report and the files for people into ``folder``."""
    EDITS.write(folder, report)
    EDITS_PAGES.write(folder, report)


def markdown_report(report: EditBenchReport) -> str:
    """Return the report for a terminal or a code host."""
    return benchmark(
        TITLE,
        notes=report.notes,
        about="docs/next-edit.md says what each figure means. Intervals are of 95 %.",
        policies={name: each.what for name, each in report.edit_policies.items()},
        sections=(*_sections(report), ("How it was done", fact_table(report))),
    )


def html_report(report: EditBenchReport) -> str:
    """Return the report as one HTML document, which runs no script."""
    return render(
        "edits.html.j2",
        package="peft_evaluation.edit_benchmark",
        title=TITLE,
        notes=report.notes,
        chart=charts.curves("time since the request", _latencies(report)),
        policies={name: each.what for name, each in report.edit_policies.items()},
        sections=_sections(report),
        facts=fact_table(report),
    )


EDITS = ReportFormat(
    file="edits.json",
    content=EditBenchReport,
    schema=SCHEMA,
    field="edit_policies",
    runs="benchmarks",
    run="a benchmark of next edits",
    again="Run the benchmark again",
)
EDITS_PAGES = ReportPages(EDITS, page="edits.html", makers={"edits.md": markdown_report, "edits.html": html_report})


def _latencies(report: EditBenchReport) -> dict[str, tuple[float, ...]]:
    found = {
        name: tuple(
            each.latency_ms for each in report.trials if each.policy == name and each.latency_ms and not each.repeated
        )
        for name in report.edit_policies
    }
    return {name: times for name, times in found.items() if times}


def _sections(report: EditBenchReport) -> list[tuple[str, Table]]:
    sections = [("Figures", figure_table(report))]
    sections += [(heading, group_table(report, name)) for name, (heading, _) in _BY.items()]
    if report.places_found:
        sections.append(("Answers in a place that is looked at", place_table(report)))
    if report.comparisons:
        sections.append(("Compared, scenario by scenario", comparison_table(report)))
    if any(each.silences for each in report.edit_policies.values()):
        sections.append(("Why nothing was suggested", silence_table(report)))
    return sections


# The tables of a report, the same on the terminal and in every kind of file.

UNKNOWN = "—"


def value(name: str, measure: Measure | None, *, interval: bool = True) -> str:
    """Write a figure: ``41 % [35, 48]``, ``0.61 [0.48, 0.73]``, ``12 [8, 18]`` of a hundred."""
    if measure is None:
        return UNKNOWN
    figure = FIGURES[name]
    percent = figure.kind is MetricKind.RATE
    parts = [f"{100 * each:.0f}" if percent else f"{each:.2f}" for each in (measure.value, measure.low, measure.high)]
    unit = " %" if percent and not figure.per_hundred else ""
    return f"{parts[0]}{unit} [{parts[1]}, {parts[2]}]" if interval else f"{parts[0]}{unit}"


def milliseconds(time_ms: float | None) -> str:
    """Write a time: ``1,240``."""
    return UNKNOWN if time_ms is None else f"{time_ms:,.0f}"


def figure_table(report: EditBenchReport, *, interval: bool = True) -> Table:
    """Return the table with a row per figure and a column per policy."""
    policies = report.edit_policies.values()
    rows = [
        (figure.label, *(value(name, each.figures.get(name), interval=interval) for each in policies))
        for name, figure in FIGURES.items()
    ]
    rows.append(("latency p50, ms", *(milliseconds(each.latency_p50_ms) for each in policies)))
    rows.append(("latency p95, ms", *(milliseconds(each.latency_p95_ms) for each in policies)))
    return Table(("", *report.edit_policies), tuple(rows))


def group_table(report: EditBenchReport, group: str) -> Table:
    """Return the table of a kind of group: a row for each group and figure, a column per policy."""
    _, names = _BY[group]
    policies = report.edit_policies.values()
    groups = dict.fromkeys(each for found in policies for each in found.groups[group])
    rows = []
    for each in groups:
        for name in names:
            measures = [found.groups[group].get(each, {}).get(name) for found in policies]
            if any(measures):
                count = max(measure.count for measure in measures if measure)
                label = f"{_WORDS.get(each, each)}, {FIGURES[name].label}"  # type: ignore[call-overload]
                rows.append((label, str(count), *(value(name, measure) for measure in measures)))
    return Table(("", "n", *report.edit_policies), tuple(rows))


def place_table(report: EditBenchReport) -> Table:
    """Return the table of answers that lie in a window that is looked at."""
    return Table(
        ("distance", "answers", "looked at"),
        tuple(
            (_WORDS.get(name, name), str(each.count), value("exact", each))  # type: ignore[call-overload]
            for name, each in report.places_found.items()
        ),
    )


def comparison_table(report: EditBenchReport) -> Table:
    """Return the table of the first policy's differences to each other."""
    return Table(
        ("policy", "against", "of", "difference", "won", "lost", "p, adjusted", "verdict"),
        tuple(
            (
                each.strategy,
                each.baseline,
                FIGURES[each.metric].label,
                f"{each.difference:+.3f} [{each.low:+.3f}, {each.high:+.3f}]",
                str(each.won),
                str(each.lost),
                probability(each.p_adjusted),
                each.judgement.value,
            )
            for each in report.comparisons
        ),
    )


def silence_table(report: EditBenchReport) -> Table:
    """Return the table of the reasons for suggesting nothing."""
    policies = report.edit_policies.values()
    reasons = dict.fromkeys(reason for each in policies for reason in each.silences)
    return Table(
        ("reason", *report.edit_policies),
        tuple((reason, *(str(_count(each, reason)) for each in policies)) for reason in reasons),
    )


def _count(figures: EditFigures, reason: str) -> int:
    return figures.silences.get(reason, 0)


def fact_table(report: EditBenchReport) -> Table:
    """Return the table of what was done, on what, where."""
    repositories = dict.fromkeys(each.repository for each in report.scenarios)
    answers = sum(each.kind is ScenarioKind.ANSWER for each in report.scenarios)
    scenarios = (
        f"{answers} with an answer, {len(report.scenarios) - answers} without, seed {report.seed}, "
        f"digest {report.scenarios_sha256[:12]}"
    )
    return benchmark_facts(report, ("scenarios", scenarios), ("repositories", ", ".join(repositories)))
