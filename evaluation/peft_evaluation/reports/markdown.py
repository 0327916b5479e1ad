"""``report.md``: the whole comparison for a terminal or a code host, without the items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from peft_evaluation.metrics.catalogue import METRICS
from peft_evaluation.reports.figures import difference, duration, measured, probability, size
from peft_evaluation.results import ItemResult, Judgement, Measure, Report, StrategyResult

SHOWN = 3
"""Items gained and lost that are shown for each strategy."""


def markdown(report: Report) -> str:
    """The report as Markdown."""
    return "\n".join((*_head(report), *_quality(report), *_costs(report), *_comparisons(report), *_flips(report)))


def _head(report: Report) -> Iterator[str]:
    data = report.data
    yield f"# {data.name}: {len(report.strategies)} strategies on {data.items} items"
    yield ""
    yield from table(
        ("", ""),
        [
            ("model", f"{report.model} ({report.model_sha256[:12]}), {report.engine} engine"),
            ("data", f"{data.name}, {data.part}, {data.items} items, digest {data.digest[:12]}, {data.licence}"),
            ("where from", data.provenance),
            ("decoding", ", ".join(f"{key}: {value}" for key, value in report.decoding.items())),
            *([("answers run in", report.sandbox)] if report.sandbox else []),
            ("machine", _machine(report)),
            ("time", duration(report.seconds)),
            ("command", f"`{report.command}`"),
            ("versions", ", ".join(f"{name} {value}" for name, value in report.versions.items())),
            ("when", report.created),
        ],
    )
    for note in (*report.warnings, *data.notes):
        yield f"> {note}"
        yield ">"
    yield ""


def _machine(report: Report) -> str:
    machine = report.machine
    accelerator = f", {machine.accelerator}" if machine.accelerator else ", no accelerator"
    return f"{machine.processor}, {machine.cores} cores, {size(machine.memory_bytes)}, {machine.system}{accelerator}"


def _quality(report: Report) -> Iterator[str]:
    yield "## Quality"
    yield ""
    yield "With 95 % intervals."
    yield ""
    yield from _figures(report.strategies, {each.id: each.metrics for each in report.strategies})
    names = dict.fromkeys(group for each in report.strategies for group in each.groups)
    for group in names:
        yield f"### {group}"
        yield ""
        of_group = {each.id: each.groups.get(group, {}) for each in report.strategies}
        yield from _figures(report.strategies, of_group)


def _figures(strategies: Sequence[StrategyResult], figures: Mapping[str, Mapping[str, Measure]]) -> Iterator[str]:
    metrics = [metric for metric in METRICS if any(metric in figures[each.id] for each in strategies)]
    yield from table(
        ("strategy", "items", *(METRICS[metric].label for metric in metrics)),
        [
            (
                each.id,
                str(max((measure.count for measure in figures[each.id].values()), default=0)),
                *(measured(m, figures[each.id][m]) if m in figures[each.id] else "—" for m in metrics),
            )
            for each in strategies
        ],
    )


def _costs(report: Report) -> Iterator[str]:
    yield "## Costs"
    yield ""
    yield from table(
        (
            "strategy",
            "prompt tokens",
            "of them reused",
            "latency p50",
            "p95",
            "tokens/s",
            "memory",
            "adapter",
            "tuning",
        ),
        [
            (
                each.id,
                f"{each.costs.prompt_tokens:.0f}",
                f"{each.costs.reused_tokens:.0f}",
                f"{each.costs.latency_p50_ms:.0f} ms",
                f"{each.costs.latency_p95_ms:.0f} ms",
                f"{each.costs.tokens_per_s:.1f}",
                size(each.costs.peak_memory_bytes),
                size(each.costs.adapter_bytes),
                duration(each.costs.tuning_seconds),
            )
            for each in report.strategies
        ],
    )


def _comparisons(report: Report) -> Iterator[str]:
    if not report.comparisons:
        return
    yield f"## Compared with {report.baseline}"
    yield ""
    yield "Item by item; p adjusted for the number of strategies (Benjamini and Hochberg)."
    yield ""
    yield from table(
        ("strategy", "metric", "difference", "won", "lost", "p", "adjusted", "test", "verdict"),
        [
            (
                each.strategy,
                METRICS[each.metric].label,
                difference(each),
                str(each.won),
                str(each.lost),
                probability(each.p),
                probability(each.p_adjusted),
                each.test,
                each.judgement.value if each.judgement is Judgement.NO_DIFFERENCE else f"**{each.judgement.value}**",
            )
            for each in report.comparisons
        ],
    )


def _flips(report: Report) -> Iterator[str]:
    metric = next((metric for metric in METRICS if metric in report.strategies[0].metrics), None)
    if metric is None or len(report.strategies) < 2:
        return
    yield f"## Some items gained and lost ({METRICS[metric].label})"
    yield ""
    for strategy in report.strategies:
        if strategy.id == report.baseline:
            continue
        for what, sign in (("gained", 1), ("lost", -1)):
            found = [item for item in report.items if sign * flip(item, strategy.id, report.baseline, metric) > 0]
            for item in found[:SHOWN]:
                yield f"{strategy.id} {what}: {one_line(item.question)}"
                yield ""
                yield "````python"
                yield f"# reference\n{item.reference.strip()}"
                for name in (report.baseline, strategy.id):
                    yield f"# {name}\n{_text(item, name).strip()}"
                yield "````"
                yield ""


def flip(item: ItemResult, strategy: str, baseline: str, metric: str) -> float:
    """How much better a strategy did on an item than another; 0 where one has no value."""
    ours, theirs = (
        [a.scores[metric] for a in item.answers if a.strategy == name and metric in a.scores]
        for name in (strategy, baseline)
    )
    return fmean(ours) - fmean(theirs) if ours and theirs else 0.0


def one_line(text: str) -> str:
    """For a heading or a table cell."""
    return " ".join(text.split())[:160].replace("|", "\\|")


def _text(item: ItemResult, strategy: str) -> str:
    return next((a.texts[0] for a in item.answers if a.strategy == strategy and a.texts), "")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table and an empty line."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace(chr(10), ' ') for cell in row)} |"
    yield ""
