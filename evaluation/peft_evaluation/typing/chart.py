"""The chart of a report: which share of keystrokes had a suggestion after how long, by policy. Coordinates only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from peft_evaluation.reports.charts import Tick
from peft_evaluation.typing.results import BenchReport

WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 52, 560, 16, 270
"""Of the plot; names stand right of it."""
FASTEST_MS, SLOWEST_MS = 10.0, 30_000.0
_TICKS = ((10, "10 ms"), (100, "100"), (300, "300"), (1000, "1 s"), (3000, "3"), (10_000, "10"), (30_000, "30"))
NAME_HEIGHT = 15.0


@dataclass(frozen=True)
class Curve:
    """One policy."""

    policy: str
    points: str
    """Of a polyline."""
    label_y: float


@dataclass(frozen=True)
class Chart:
    """All policies over the same axes."""

    curves: tuple[Curve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP
    bottom: int = BOTTOM


def chart(report: BenchReport) -> Chart:
    """Cumulative shares over a logarithmic time; keystrokes that never got a suggestion keep a curve below the top."""
    drawn = [(name, _steps(times)) for name, times in report.latencies.items() if times]
    taken: list[float] = []
    curves = []
    for name, steps in sorted(drawn, key=lambda pair: pair[1][-1][1]):
        y = steps[-1][1]
        # Names of curves that end close to each other stand below one another.
        label = max([y, *(other + NAME_HEIGHT for other in taken[-1:])]) if taken else y
        taken.append(label)
        curves.append(Curve(name, " ".join(f"{px:g},{py:g}" for px, py in steps), round(label + 4, 1)))
    order = list(report.latencies)
    return Chart(
        tuple(sorted(curves, key=lambda curve: order.index(curve.policy))),
        tuple(Tick(_x(value), label) for value, label in _TICKS),
        tuple(Tick(_y(value / 4), f"{25 * value} %") for value in range(5)),
    )


def _steps(times: Sequence[float | None]) -> list[tuple[float, float]]:
    found = sorted(time for time in times if time is not None)
    steps = [(float(LEFT), _y(0))]
    for number, time in enumerate(found, 1):
        x = _x(time)
        if x != steps[-1][0]:
            steps.append((x, steps[-1][1]))
        steps[-1] = (x, _y(number / len(times))) if len(steps) > 1 and steps[-2][0] == x else steps[-1]
        if steps[-1][1] != _y(number / len(times)):
            steps.append((x, _y(number / len(times))))
    return [*steps, (float(RIGHT), steps[-1][1])]


def _x(milliseconds: float) -> float:
    inside = min(max(milliseconds, FASTEST_MS), SLOWEST_MS)
    share = math.log(inside / FASTEST_MS) / math.log(SLOWEST_MS / FASTEST_MS)
    return round(LEFT + share * (RIGHT - LEFT), 1)


def _y(share: float) -> float:
    return round(BOTTOM - share * (BOTTOM - TOP), 1)
