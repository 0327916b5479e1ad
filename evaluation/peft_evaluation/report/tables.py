"""The tables of a report and the format of their numbers, the same in all files and on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from peft_evaluation.report.schema import Comparison, Machine, Measure, Report
from peft_evaluation.scorers.metrics import METRICS, WHOLES, MetricKind


@dataclass(frozen=True)
class Table:
    """A table; every row has as many cells as the head."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class BenchmarkRun(Protocol):
    """What every report of a benchmark says of how it was made."""

    @property
    def model(self) -> str:
        """Id of the model."""

    @property
    def model_sha256(self) -> str:
        """That of its file."""

    @property
    def machine(self) -> Machine:
        """Where it ran."""

    @property
    def seconds(self) -> float:
        """How long it took."""

    @property
    def command(self) -> str:
        """With which it was made."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Of the libraries."""

    @property
    def created(self) -> str:
        """When, ISO 8601."""


def benchmark_facts(run: BenchmarkRun, *subject: tuple[str, str]) -> Table:
    """Return the table of what a benchmark did, where; ``subject`` are the rows on what it was done."""
    machine = run.machine
    where = f"{machine.processor}, {machine.cores} cores, {size(machine.memory_bytes)}, {machine.system}"
    rows = (
        ("model", f"{run.model} ({run.model_sha256[:12]})"),
        *subject,
        ("machine", where),
        ("time", duration(run.seconds)),
        ("command", run.command),
        ("versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
        ("when", run.created),
    )
    return Table(("", ""), rows)


def facts(report: Report) -> Table:
    """Return the table of what was evaluated, how, and on which machine."""
    data, machine = report.data, report.machine
    accelerator = machine.accelerator or "no accelerator"
    where = f"{machine.processor}, {machine.cores} cores, {size(machine.memory_bytes)}, {machine.system}, {accelerator}"
    rows = [
        ("model", f"{report.model} ({report.model_sha256[:12]}), {report.engine} engine"),
        ("data", f"{data.name}, {data.part}, {data.items} items, digest {data.digest[:12]}, {data.licence}"),
        ("where from", data.provenance),
        (
            "decoding",
            ", ".join(value if key == "decoding" else f"{key}: {value}" for key, value in report.decoding.items()),
        ),
        *([("answers run in", report.sandbox)] if report.sandbox else []),
        ("machine", where),
        *([("answered by", f"{machine.nodes} nodes of a cluster")] if machine.nodes > 1 else []),
        ("time", duration(report.seconds)),
        ("command", report.command),
        ("versions", ", ".join(f"{name} {value}" for name, value in report.versions.items())),
        ("when", report.created),
    ]
    return Table(("", ""), tuple(rows))


def quality(figures: Mapping[str, Mapping[str, Measure]], of: Sequence[str] = WHOLES) -> Table:
    """Return the table of the metrics ``of`` that have values; ``figures`` has the values by strategy."""
    metrics = [metric for metric in of if any(metric in measures for measures in figures.values())]
    return Table(
        ("strategy", "items", *(METRICS[metric].label for metric in metrics)),
        tuple(
            (
                name,
                str(max((measure.count for measure in measures.values()), default=0)),
                *(format_interval(m, measures[m]) if m in measures else "—" for m in metrics),
            )
            for name, measures in figures.items()
        ),
    )


def of_parts(report: Report) -> Mapping[str, Table]:
    """Return a table for each metric that has parts, by its heading."""
    figures = {each.id: each.metrics for each in report.strategies}
    there = {name for measures in figures.values() for name in measures}
    wholes = dict.fromkeys(metric.part_of for metric in METRICS.values() if metric.part_of and metric.id in there)
    return {
        f"Parts of {METRICS[whole].label}": quality(
            figures, [name for name, metric in METRICS.items() if metric.part_of == whole]
        )
        for whole in wholes
    }


def by_group(report: Report) -> Mapping[str, Table]:
    """Return the quality table of each group of items."""
    names = dict.fromkeys(group for each in report.strategies for group in each.groups)
    return {group: quality({each.id: each.groups.get(group, {}) for each in report.strategies}) for group in names}


def costs(report: Report) -> Table:
    """Return the table of the strategies' costs."""
    return Table(
        (
            "strategy",
            "prompt tokens",
            "of them reused",
            "at once",
            "latency p50",
            "p95",
            "tokens/s",
            "memory",
            "adapter",
            "tuning",
        ),
        tuple(
            (
                each.id,
                f"{each.costs.prompt_tokens:.0f}",
                f"{each.costs.reused_tokens:.0f}",
                str(each.costs.at_once),
                f"{each.costs.latency_p50_ms:.0f} ms",
                f"{each.costs.latency_p95_ms:.0f} ms",
                f"{each.costs.tokens_per_s:.1f}",
                size(each.costs.peak_memory_bytes),
                size(each.costs.adapter_bytes),
                duration(each.costs.tuning_seconds),
            )
            for each in report.strategies
        ),
    )


def comparisons(found: Sequence[Comparison]) -> Table:
    """Return the table of differences and their judgements."""
    return Table(
        ("strategy", "metric", "difference", "won", "lost", "p", "adjusted", "test", "verdict"),
        tuple(
            (
                each.strategy,
                METRICS[each.metric].label,
                difference(each),
                str(each.won),
                str(each.lost),
                probability(each.p),
                probability(each.p_adjusted),
                each.test,
                each.judgement.value,
            )
            for each in found
        ),
    )


def format_interval(metric: str, measure: Measure) -> str:
    """Format a value with its interval, if it has one: ``41.7 % [24.5, 61.2]``, ``0.611 [0.48, 0.73]``."""
    value, low, high = (number(metric, each) for each in (measure.value, measure.low, measure.high))
    unit = " %" if _percent(metric) else ""
    return f"{value}{unit}" if measure.interval == "none" else f"{value}{unit} [{low}, {high}]"


def format_value(metric: str, value: float) -> str:
    """Format a value with its unit: ``41.7 %``, ``0.611``."""
    return number(metric, value) + (" %" if _percent(metric) else "")


def difference(comparison: Comparison) -> str:
    """Format a difference with its sign and interval."""
    parts = (comparison.difference, comparison.low, comparison.high)
    value, low, high = (f"{'+' if each > 0 else ''}{number(comparison.metric, each)}" for each in parts)
    return f"{value} [{low}, {high}]"


def number(metric: str, value: float) -> str:
    """Format a value without unit, on the metric's scale: rates and pass@k in percent."""
    if _percent(metric):
        return f"{100 * value:.1f}"
    return f"{value:.1f}" if METRICS[metric].highest > 1 else f"{value:.3f}"


def probability(p: float) -> str:
    """Format a probability: ``0.012``, ``< 0.001``."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def size(count: int | None) -> str:
    """Format a number of bytes: ``12.3 MB``, ``1.20 GB``; a dash for None."""
    if count is None:
        return "—"
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def duration(seconds: float | None) -> str:
    """Format a duration with at most two units: ``4 h 12 min``, ``3 min 5 s``, ``8.2 s``; a dash for None."""
    if seconds is None:
        return "—"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _percent(metric: str) -> bool:
    return METRICS[metric].kind is MetricKind.RATE or metric == "tests"
