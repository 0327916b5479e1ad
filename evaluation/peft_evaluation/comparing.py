"""What one report, or two of the same items, say of strategies beside what a report says by itself.

Of two, each strategy before and after a change; of one, all strategies against any of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_core.errors import InvalidInput
from peft_evaluation.assembling import values
from peft_evaluation.metrics.catalogue import METRICS, WHOLES
from peft_evaluation.results import Comparison, Report
from peft_evaluation.statistics import adjust, compare


def compare_reports(before: Report, after: Report) -> tuple[Comparison, ...]:
    """Every strategy of both, on every metric of both; a positive difference is for ``after``.

    p is adjusted over the strategies of a metric. Raises InvalidInput when the items differ or no strategy is in both.
    """
    if before.data.digest != after.data.digest:
        raise InvalidInput(
            "the two reports are not of the same items",
            why=f"{_data(before)}, and {_data(after)}",
            fix="Evaluate both on the same data and with the same --limit",
        )
    names = [each.id for each in before.strategies if each.id in {other.id for other in after.strategies}]
    if not names:
        raise InvalidInput(
            "the two reports share no strategy",
            why=f"{_strategies(before)}, and {_strategies(after)}",
            fix="Evaluate one strategy in both",
        )
    return tuple(found for metric in WHOLES for found in adjust(list(_on(metric, names, before, after))))


def compare_strategies(report: Report, baseline: str) -> tuple[Comparison, ...]:
    """All other strategies against ``baseline``, on every metric both have; a positive difference is for the other.

    p is adjusted over the strategies of a metric. Raises InvalidInput for a strategy that is not in the report, or
    the only one.
    """
    others = [each.id for each in report.strategies if each.id != baseline]
    if len(others) == len(report.strategies) or not others:
        raise InvalidInput(
            f"nothing can be compared with '{baseline}'",
            why=f"the report has {_strategies(report)}",
            fix="Name another",
        )
    old = values(report.items, baseline)
    found: list[Comparison] = []
    for metric in WHOLES:
        pairs = [(name, new[metric]) for name in others if metric in (new := values(report.items, name))]
        paired = [pair for pair in pairs if metric in old and pair[1].keys() & old[metric].keys()]
        kind = METRICS[metric].kind
        found += adjust([compare(pair, (baseline, old[metric]), metric, kind) for pair in paired])
    return tuple(found)


def _on(metric: str, names: list[str], before: Report, after: Report) -> Iterator[Comparison]:
    for name in names:
        old, new = values(before.items, name), values(after.items, name)
        if metric in old and metric in new and old[metric].keys() & new[metric].keys():
            yield compare((name, new[metric]), (name, old[metric]), metric, METRICS[metric].kind)


def _data(report: Report) -> str:
    return f"{report.data.name}, {report.data.part} ({report.data.items} items, {report.data.digest[:12]})"


def _strategies(report: Report) -> str:
    return ", ".join(each.id for each in report.strategies)
