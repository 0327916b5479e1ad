"""``bench.json``, and the files for people made from it: ``bench.md``, and ``bench.html``, which fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from peft_core import files
from peft_evaluation.report.charts import Tick
from peft_evaluation.report.markdown import lines
from peft_evaluation.report.tables import Table, duration, probability, size
from peft_evaluation.typing_benchmark.results import BenchReport, PolicyFigures

JSON, MARKDOWN, HTML = "bench.json", "bench.md", "bench.html"
TITLE = "Typing benchmark"


def write_report(folder: Path, report: BenchReport) -> None:
    """Write all three into ``folder``."""
    files.write_durable(folder / JSON, msgspec.json.format(msgspec.json.encode(report), indent=1))
    files.write_durable(folder / MARKDOWN, markdown_report(report).encode())
    files.write_durable(folder / HTML, html_report(report).encode())


def markdown_report(report: BenchReport) -> str:
    """The report for a terminal or a code host."""
    return "\n".join(_markdown_lines(report)) + "\n"


def html_report(report: BenchReport) -> str:
    """The report as one HTML document."""
    style = _style()
    return (
        _environment()
        .get_template("bench.html.j2")
        .render(
            title=TITLE,
            # It is this package's own, and named in the policy by what it is.
            style=Markup(style),  # noqa: S704
            style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
            notes=report.notes,
            chart=chart(report),
            sections=_sections(report),
        )
    )


def _sections(report: BenchReport) -> list[tuple[str, Table]]:
    sections = [("Goals", goal_table(report)), ("Figures", policy_table(report))]
    if report.ratios:
        sections.append(("Ours to the better re-created policy", ratio_table(report)))
    if report.comparisons:
        sections.append(("Quality, line by line", comparison_table(report)))
    return [*sections, ("Traces", trace_table(report)), ("How it was done", fact_table(report))]


def _markdown_lines(report: BenchReport) -> Iterator[str]:
    yield f"# {TITLE}"
    yield ""
    for note in report.notes:
        yield f"> {note}"
        yield ">"
    yield ""
    yield "docs/typing-benchmark.md says what each figure means."
    yield ""
    for name, each in report.policies.items():
        yield f"- `{name}`: {each.what}"
    yield ""
    for heading, table in _sections(report):
        yield f"## {heading}"
        yield ""
        yield from lines(table)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("peft_evaluation.typing_benchmark"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )


@cache
def _style() -> str:
    """The evaluation reports' own, and the colours of the curves."""
    shared = resources.files("peft_evaluation.report").joinpath("templates", "report.css").read_text(encoding="utf-8")
    return shared + resources.files("peft_evaluation.typing_benchmark").joinpath("templates", "bench.css").read_text(
        encoding="utf-8"
    )


# The chart of a report: which share of keystrokes had a suggestion after how long, by policy. Coordinates only.

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
)


def policy_table(report: BenchReport) -> Table:
    """A row per figure, a column per policy."""
    scenes = dict.fromkeys(name for each in report.policies.values() for name in each.scenes)
    rows = [(label, *(show(each) for each in report.policies.values())) for label, show in _ROWS]
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
    machine = report.machine
    rows: Iterator[tuple[str, str]] = iter(
        (
            ("model", f"{report.model} ({report.model_sha256[:12]})"),
            ("traces", f"{len(report.traces)}, seed {report.seed}, digest {report.traces_sha256[:12]}"),
            ("machine", f"{machine.processor}, {machine.cores} cores, {size(machine.memory_bytes)}, {machine.system}"),
            ("time", duration(report.seconds)),
            ("command", report.command),
            ("versions", ", ".join(f"{name} {version}" for name, version in report.versions.items())),
            ("when", report.created),
        )
    )
    return Table(("", ""), tuple(rows))
