"""``report.html``, an evaluation's page: charts, every item, and a filter, which is the page's one script."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peft_evaluation.report import charts, tables
from peft_evaluation.report.markdown import first_text, flips, headline, markdown, title, value
from peft_evaluation.report.page import ReportPages, render
from peft_evaluation.report.schema import Report, ReportedSample
from peft_evaluation.report.store import EVALUATION
from peft_evaluation.report.tables import difference, number
from peft_evaluation.scorers.metrics import METRICS, WHOLES, MetricKind

SHOWN = 12
"""Items gained or lost whose difference is shown in full."""


@dataclass(frozen=True)
class _VerdictLine:
    kind: str
    text: str


@dataclass(frozen=True)
class _DiffLine:
    kind: str
    text: str


@dataclass(frozen=True)
class _AnswerDiff:
    question: str
    lines: tuple[_DiffLine, ...]


@dataclass(frozen=True)
class _FlipDiffs:
    strategy: str
    gained: tuple[_AnswerDiff, ...]
    lost: tuple[_AnswerDiff, ...]


@dataclass(frozen=True)
class _ScoreMark:
    kind: str
    title: str
    text: str


@dataclass(frozen=True)
class _AnswerView:
    head: str
    text: str


@dataclass(frozen=True)
class _SampleView:
    id: str
    question: str
    reference: str
    marks: str
    """One character per strategy: 1 right, 0 wrong, - neither."""
    shown: tuple[_ScoreMark, ...]
    answers: tuple[_AnswerView, ...]


def html(report: Report) -> str:
    """The report as one HTML document."""
    metric = headline(report)
    metrics = [name for name in WHOLES if any(name in each.metrics for each in report.strategies)]
    figures = {each.id: each.metrics for each in report.strategies}
    scatters = [charts.scatter(report, metric, cost) for cost in ("latency", "memory")]
    return render(
        "report.html.j2",
        script="report.js",
        report=report,
        title=title(report),
        verdicts=_verdicts(report, metric),
        notes=(*report.warnings, *report.data.notes),
        charts=[charts.intervals(figures, name, report.baseline) for name in metrics],
        scatters=[chart for chart in scatters if chart],
        groups={**tables.of_parts(report), **tables.by_group(report)},
        costs=tables.costs(report),
        comparisons=tables.comparisons(report.comparisons),
        facts=tables.facts(report),
        headline=METRICS[metric].label,
        flips=[
            _FlipDiffs(
                each.strategy,
                _changes(report, each.strategy, each.gained),
                _changes(report, each.strategy, each.lost),
            )
            for each in flips(report)
        ],
        shown=SHOWN,
        strategies=[each.id for each in report.strategies],
        items=[_sample_view(report, item, metric) for item in report.items],
    )


def _verdicts(report: Report, metric: str) -> list[_VerdictLine]:
    return [
        _VerdictLine(
            each.judgement.value.split()[0],
            f"{each.strategy} against {each.baseline}: {each.judgement.value} "
            f"({METRICS[metric].label} {difference(each)})",
        )
        for each in report.comparisons
        if each.metric == metric
    ]


def _changes(report: Report, strategy: str, items: Sequence[ReportedSample]) -> tuple[_AnswerDiff, ...]:
    return tuple(_change(item, report.baseline, strategy) for item in items)


def _change(item: ReportedSample, baseline: str, strategy: str) -> _AnswerDiff:
    before, after = first_text(item, baseline).splitlines(), first_text(item, strategy).splitlines()
    kinds = {"+": "added", "-": "removed", " ": "same"}
    lines = [_DiffLine("same", f"  {line}  # reference") for line in item.reference.strip().splitlines()[:6]]
    lines += [_DiffLine(kinds[line[0]], line) for line in difflib.ndiff(before, after) if line[0] in kinds]
    return _AnswerDiff(" ".join(item.question.split())[:200], tuple(lines))


def _sample_view(report: Report, item: ReportedSample, metric: str) -> _SampleView:
    values = {each.id: value(item, each.id, metric) for each in report.strategies}
    rate = METRICS[metric].kind is MetricKind.RATE
    several = {each.id for each in report.strategies if len(each.seeds) > 1}
    return _SampleView(
        id=item.id,
        question=" ".join(item.question.split())[:300],
        reference=item.reference,
        marks="".join("-" if found is None or not rate else "01"[found >= 0.5] for found in values.values()),
        shown=tuple(
            _ScoreMark(
                ("right" if found >= 0.5 else "wrong") if rate else "figure",
                f"{name}: {METRICS[metric].label}",
                f"{name} {'✓' if found == 1 else '✗' if found == 0 else number(metric, found)}"
                if rate
                else f"{name} {number(metric, found)}",
            )
            for name, found in values.items()
            if found is not None
        ),
        answers=tuple(
            _AnswerView(
                ", ".join(
                    (
                        f"{each.strategy}, seed {each.seed}" if each.strategy in several else each.strategy,
                        *(f"{METRICS[name].label} {number(name, score)}" for name, score in each.scores.items()),
                        *each.outcomes,
                    )
                ),
                each.texts[0] if each.texts else "",
            )
            for each in item.answers
        ),
    )


EVALUATION_PAGES = ReportPages(EVALUATION, page="report.html", makers={"report.md": markdown, "report.html": html})


def write_pages(folder: Path, report: Report) -> None:
    """Write an evaluation's files for people into ``folder``."""
    EVALUATION_PAGES.write(folder, report)
