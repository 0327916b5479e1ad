"""``report.html``: one file with charts, every item and a filter, that fetches nothing and runs one script of its own.

Values reach the page through Jinja's escaping alone; the content policy names the script and the style by their hash.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from peft_core import files
from peft_evaluation.report import charts, tables
from peft_evaluation.report.markdown import first_text, flips, headline, markdown, title, value
from peft_evaluation.report.schema import Report, ReportedSample
from peft_evaluation.report.tables import difference, number
from peft_evaluation.scorers.metrics import METRICS, WHOLES, MetricKind

SHOWN = 12
"""Items gained or lost whose difference is shown in full."""
_SIGNS = {1.0: "✓", 0.0: "✗"}


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
    style, script = _asset("report.css"), _asset("report.js")
    metrics = [name for name in WHOLES if any(name in each.metrics for each in report.strategies)]
    scatters = [charts.scatter(report, metric, cost) for cost in ("latency", "memory")]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            title=title(report),
            # Both are this package's own, and named in the policy by what they are.
            style=Markup(style),  # noqa: S704
            script=Markup(script),  # noqa: S704
            style_hash=_hash(style),
            script_hash=_hash(script),
            verdicts=_verdicts(report, metric),
            notes=(*report.warnings, *report.data.notes),
            charts=[charts.intervals(report, name) for name in metrics],
            scatters=[chart for chart in scatters if chart],
            groups=[
                {"name": name, "head": table.head, "rows": table.rows}
                for name, table in {**tables.of_parts(report), **tables.by_group(report)}.items()
            ],
            costs=tables.costs(report),
            comparisons=tables.comparisons(report.comparisons),
            facts=tables.facts(report).rows,
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
            width=charts.WIDTH,
            height=charts.HEIGHT,
            right=charts.RIGHT,
            top=charts.TOP,
        )
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("peft_evaluation.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )


@cache
def _asset(name: str) -> str:
    return resources.files("peft_evaluation.report").joinpath("templates", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


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


PAGES: Mapping[str, Callable[[Report], str]] = {"report.md": markdown, "report.html": html}


def write_pages(folder: Path, report: Report) -> None:
    """Write every kind into ``folder``."""
    for name, make in PAGES.items():
        files.write_durable(folder / name, make(report).encode())
