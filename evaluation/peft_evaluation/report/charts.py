"""Coordinates of the marks in charts (values, intervals, curves), in pixels. The templates draw them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from peft_evaluation.report.schema import Measure, Report, StrategyResult
from peft_evaluation.report.tables import format_interval, number
from peft_evaluation.scorers.metrics import METRICS

PLOT, RIGHT, ROW, TOP = 380, 150, 26, 14
"""Layout of an interval chart: width of the plot, space for numbers to its right, row height, top margin."""
LETTER = 7.0
"""Average width of a character."""
WIDTH, HEIGHT = 720, 300
"""Size of a chart with two axes."""
LEFT, X_LABELS = 64, 40
"""Space for the labels of the y axis and of the x axis."""
TICKS = 5
FASTEST_MS, SLOWEST_MS = 10.0, 30_000.0
"""Ends of the time axis of curves."""
_TIMES = ((10, "10 ms"), (100, "100"), (300, "300"), (1000, "1 s"), (3000, "3"), (10_000, "10"), (30_000, "30"))
NAME_HEIGHT = 15.0
COLOURS = 5
"""Number of colours for curves; a further curve gets the first colour again."""


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class IntervalBar:
    """One strategy on one metric."""

    strategy: str
    y: float
    low: float
    value: float
    high: float
    label: str
    baseline: bool


@dataclass(frozen=True)
class IntervalChart:
    """All strategies on one metric."""

    label: str
    bars: tuple[IntervalBar, ...]
    ticks: tuple[Tick, ...]
    left: float
    """Right end of the names."""
    right: float
    """Left end of the numbers."""
    width: float
    height: float
    top: float = TOP


@dataclass(frozen=True)
class Axes:
    """The axes and the size of a chart with two axes; there is space for names to the right of the plot."""

    x_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = 16
    bottom: float = HEIGHT - X_LABELS
    width: float = WIDTH
    height: float = HEIGHT


@dataclass(frozen=True)
class ScatterPoint:
    """One strategy in a scatter chart."""

    strategy: str
    x: float
    y: float
    label_y: float
    baseline: bool


@dataclass(frozen=True)
class ScatterChart:
    """One metric against one cost."""

    y_label: str
    points: tuple[ScatterPoint, ...]
    axes: Axes


@dataclass(frozen=True)
class Curve:
    """One policy in a chart of curves."""

    policy: str
    points: str
    """Points of an SVG polyline."""
    label_y: float
    colour: int


@dataclass(frozen=True)
class CurveChart:
    """All policies over the same axes."""

    curves: tuple[Curve, ...]
    axes: Axes


def intervals(figures: Mapping[str, Mapping[str, Measure]], metric: str, baseline: str) -> IntervalChart:
    """Return the chart of a metric's values and intervals; ``figures`` has the metrics by strategy, in their order."""
    there = [name for name, metrics in figures.items() if metric in metrics]
    measures = [figures[name][metric] for name in there]
    left = 20 + LETTER * max(map(len, there))
    scale = _AxisScale.of([m.low for m in measures] + [m.high for m in measures], left, left + PLOT)
    bars = tuple(
        IntervalBar(
            strategy=name,
            y=TOP + ROW * (index + 0.5),
            low=scale.at(measure.low),
            value=scale.at(measure.value),
            high=scale.at(measure.high),
            label=format_interval(metric, measure),
            baseline=name == baseline,
        )
        for index, (name, measure) in enumerate(zip(there, measures, strict=True))
    )
    ticks = tuple(Tick(scale.at(value), number(metric, value)) for value in scale.ticks())
    return IntervalChart(
        METRICS[metric].label,
        bars,
        ticks,
        left=left - 10,
        right=left + PLOT + 10,
        width=left + PLOT + RIGHT,
        height=TOP + ROW * len(bars) + 24,
    )


def scatter(report: Report, metric: str, cost: str) -> ScatterChart | None:
    """Return the chart of ``metric`` against ``latency`` or ``memory``; None if fewer than two strategies have both."""
    label, reading = _COSTS[cost]
    known = [(each, x) for each in report.strategies if metric in each.metrics and (x := reading(each)) is not None]
    if len(known) < 2:
        return None
    xs = _AxisScale.of([x for _, x in known], Axes.left, Axes.right, from_zero=True)
    ys = _AxisScale.of([each.metrics[metric].value for each, _ in known], Axes.bottom, Axes.top)
    taken: list[float] = []
    points = []
    for each, x in sorted(known, key=lambda pair: ys.at(pair[0].metrics[metric].value)):
        y = ys.at(each.metrics[metric].value)
        # Labels of points that lie close to each other stand below one another.
        label_y = max([y, *(other + 13 for other in taken)]) if taken and y - taken[-1] < 13 else y
        taken.append(label_y)
        points.append(ScatterPoint(each.id, xs.at(x), y, label_y, baseline=each.id == report.baseline))
    return ScatterChart(
        METRICS[metric].label,
        tuple(points),
        Axes(
            label,
            tuple(Tick(xs.at(value), f"{value:g}") for value in xs.ticks()),
            tuple(Tick(ys.at(value), number(metric, value)) for value in ys.ticks()),
        ),
    )


_COSTS: Mapping[str, tuple[str, Callable[[StrategyResult], float | None]]] = {
    "latency": ("median latency, ms", lambda each: each.costs.latency_p50_ms),
    "memory": ("peak memory, MB", lambda each: each.costs.peak_memory_bytes and each.costs.peak_memory_bytes / 1e6),
}


def curves(label: str, latencies: Mapping[str, Sequence[float | None]]) -> CurveChart:
    """Return the cumulative distributions of latencies (in ms) on a logarithmic axis; a latency of None is infinite."""
    drawn = [(policy, _steps(times)) for policy, times in latencies.items() if times]
    taken: list[float] = []
    found = {}
    for policy, steps in sorted(drawn, key=lambda pair: pair[1][-1][1]):
        y = steps[-1][1]
        # Names of curves that end close to each other stand below one another.
        label_y = max([y, *(other + NAME_HEIGHT for other in taken[-1:])])
        taken.append(label_y)
        colour = list(latencies).index(policy) % COLOURS
        found[policy] = Curve(policy, " ".join(f"{px:g},{py:g}" for px, py in steps), round(label_y + 4, 1), colour)
    return CurveChart(
        tuple(found[policy] for policy, _ in drawn),
        Axes(
            label,
            tuple(Tick(_time_at(value), text) for value, text in _TIMES),
            tuple(Tick(_share_at(value / 4), f"{25 * value} %") for value in range(5)),
        ),
    )


def _steps(times: Sequence[float | None]) -> list[tuple[float, float]]:
    found = sorted(time for time in times if time is not None)
    steps = [(Axes.left, _share_at(0))]
    for count, time in enumerate(found, 1):
        x = _time_at(time)
        if x != steps[-1][0]:
            steps.append((x, steps[-1][1]))
        steps[-1] = (x, _share_at(count / len(times))) if len(steps) > 1 and steps[-2][0] == x else steps[-1]
        if steps[-1][1] != _share_at(count / len(times)):
            steps.append((x, _share_at(count / len(times))))
    return [*steps, (Axes.right, steps[-1][1])]


def _time_at(milliseconds: float) -> float:
    inside = min(max(milliseconds, FASTEST_MS), SLOWEST_MS)
    share = math.log(inside / FASTEST_MS) / math.log(SLOWEST_MS / FASTEST_MS)
    return round(Axes.left + share * (Axes.right - Axes.left), 1)


def _share_at(share: float) -> float:
    return round(Axes.bottom - share * (Axes.bottom - Axes.top), 1)


@dataclass(frozen=True)
class _AxisScale:
    """A linear map from values to coordinates; the ends of the axis are round numbers."""

    low: float
    high: float
    step: float
    first: float
    last: float

    @classmethod
    def of(cls, values: Sequence[float], first: float, last: float, *, from_zero: bool = False) -> _AxisScale:
        low, high = min(values), max(values)
        if from_zero:
            low = 0.0
        step = _round_step((high - low) / TICKS or abs(high) / TICKS or 1.0)
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
        return cls(low, high if high > low else low + step, step, first, last)

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.first + share * (self.last - self.first), 1)

    def ticks(self) -> list[float]:
        count = round((self.high - self.low) / self.step)
        return [round(self.low + index * self.step, 10) for index in range(count + 1)]


def _round_step(wanted: float) -> float:
    """Return the next larger number that is 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= wanted * (1 - 1e-9))
