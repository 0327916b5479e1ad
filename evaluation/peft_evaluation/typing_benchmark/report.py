"""The report of the typing benchmark: ``bench.json``, and ``bench.md`` and ``bench.html`` made from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from peft_evaluation.report import charts
from peft_evaluation.report.markdown import benchmark
from peft_evaluation.report.page import ReportPages, render
from peft_evaluation.report.store import ReportFormat
from peft_evaluation.report.tables import Table, benchmark_facts, probability
from peft_evaluation.typing_benchmark.results import SCHEMA, BenchReport, PolicyFigures

TITLE = "Typing benchmark"


def write_report(folder: Path, report: BenchReport) -> None:
    """Write the report and the files for people into ``folder``."""
    TYPING.write(folder, report)
    TYPING_PAGES.write(folder, report)


def markdown_report(report: BenchReport) -> str:
    """The report for a terminal or a code host."""
    return benchmark(
        TITLE,
        notes=report.notes,
        about="docs/typing-benchmark.md says what each figure means.",
        policies={name: each.what for name, each in report.policies.items()},
        sections=(*_sections(report), ("How it was done", fact_table(report))),
    )


def html_report(report: BenchReport) -> str:
    """The report as one HTML document, which runs no script."""
    return render(
        "bench.html.j2",
        package="peft_evaluation.typing_benchmark",
        title=TITLE,
        notes=report.notes,
        chart=charts.curves("time since the keystroke", report.latencies),
        sections=_sections(report),
        facts=fact_table(report),
    )


TYPING = ReportFormat(
    file="bench.json",
    content=BenchReport,
    schema=SCHEMA,
    field="policies",
    runs="benchmarks",
    run="a typing benchmark",
    again="Run the benchmark again",
)
TYPING_PAGES = ReportPages(TYPING, page="bench.html", makers={"bench.md": markdown_report, "bench.html": html_report})


def _sections(report: BenchReport) -> list[tuple[str, Table]]:
    sections = [("Goals", goal_table(report)), ("Figures", policy_table(report))]
    if report.ratios:
        sections.append(("Ours to the better re-created policy", ratio_table(report)))
    if report.comparisons:
        sections.append(("Quality, line by line", comparison_table(report)))
    return [*sections, ("Traces", trace_table(report))]


# The tables of a report, the same on the terminal and in every kind of file.

NEVER, UNKNOWN = "never", "—"


def milliseconds(value: float | None) -> str:
    """``95``, ``1,240``; ``never`` for one that is infinite."""
    return NEVER if value is None else f"{value:,.0f}"


def share(value: float | None) -> str:
    """``41 %``."""
    return UNKNOWN if value is None else f"{100 * value:.0f} %"


def number(value: float | None) -> str:
    """``12.5``, ``0.08``."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


_ROWS: tuple[tuple[str, Callable[[PolicyFigures], str]], ...] = (
    ("first p50, ms", lambda f: milliseconds(f.p50_ms)),
    ("first p95, ms", lambda f: milliseconds(f.p95_ms)),
    ("first p99, ms", lambda f: milliseconds(f.p99_ms)),
    ("full p50, ms", lambda f: milliseconds(f.full_p50_ms)),
    ("full p95, ms", lambda f: milliseconds(f.full_p95_ms)),
    ("within 100 ms", lambda f: share(f.within_100_ms)),
    ("within 300 ms", lambda f: share(f.within_300_ms)),
    ("within 1 s", lambda f: share(f.within_1000_ms)),
    ("never", lambda f: share(f.never)),
    ("nothing to show", lambda f: share(f.nothing)),
    ("overtaken", lambda f: share(f.overtaken)),
    ("without model", lambda f: share(f.without_model)),
    ("read per key", lambda f: number(f.evaluated_per_typed)),
    ("written per key", lambda f: number(f.decoded_per_typed)),
    ("CPU s per key", lambda f: number(f.cpu_s_per_typed)),
    ("exact line", lambda f: share(f.exact)),
    ("similarity", lambda f: number(f.similarity)),
    ("exact if shown", lambda f: share(f.exact_shown)),
    ("right / shown", lambda f: share(f.accepted_per_shown)),
    ("right characters per key", lambda f: number(f.right_per_key)),
    ("wrong characters per key", lambda f: number(f.wrong_per_key)),
)


def policy_table(report: BenchReport) -> Table:
    """A row per figure, a column per policy."""
    scenes = dict.fromkeys(name for each in report.policies.values() for name in each.scenes)
    found = [(label, *(show(each) for each in report.policies.values())) for label, show in _ROWS]
    rows = [row for row in found if set(row[1:]) != {UNKNOWN}]  # earlier versions measured less
    rows += [
        (f"{name}, ms", *(milliseconds(each.scenes.get(name)) for each in report.policies.values())) for name in scenes
    ]
    return Table(("", *report.policies), tuple(rows))


def goal_table(report: BenchReport) -> Table:
    """What was to be reached."""
    words = {True: "met", False: "not met", None: "not measured"}
    return Table(
        ("goal", "target", "found", ""),
        tuple((goal.what, goal.target, number(goal.value), words[goal.met]) for goal in report.goals),
    )


def ratio_table(report: BenchReport) -> Table:
    """Of ours to the better rival."""
    return Table(
        ("policy", "figure", "ratio", "to"),
        tuple((ratio.policy, ratio.figure, number(ratio.value), ratio.rival) for ratio in report.ratios),
    )


def comparison_table(report: BenchReport) -> Table:
    """Quality, line by line."""
    return Table(
        ("policy", "against", "of", "difference", "p, adjusted", "verdict"),
        tuple(
            (
                each.strategy,
                each.baseline,
                {"exact": "exact line", "similarity": "similarity"}[each.metric],
                f"{each.difference:+.3f} [{each.low:+.3f}, {each.high:+.3f}]",
                probability(each.p_adjusted),
                each.judgement.value,
            )
            for each in report.comparisons
        ),
    )


def trace_table(report: BenchReport) -> Table:
    """What was replayed."""
    return Table(
        ("trace", "of", "files", "s", "keys", "with"),
        tuple(
            (
                each.id,
                each.code_base,
                ", ".join(each.files),
                f"{each.seconds:.0f}",
                str(each.typed),
                ", ".join(each.covers),
            )
            for each in report.traces
        ),
    )


def fact_table(report: BenchReport) -> Table:
    """What was done, on what, where."""
    traces = f"{len(report.traces)}, seed {report.seed}, digest {report.traces_sha256[:12]}"
    return benchmark_facts(report, ("traces", traces))
