"""A run as people see it: a bar on a terminal, a line now and then in a log; then the figures."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from peft_evaluation.typing_benchmark import report as report_module
from peft_evaluation.typing_benchmark.report import HTML
from peft_evaluation.typing_benchmark.results import BenchReport
from peft_evaluation.typing_benchmark.run import BenchReported, Replaying, TypingEvent
from peft_tuning.events import duration

LINE_S = 30.0
"""A log gets a line this often."""

View = AbstractContextManager[Callable[[TypingEvent], None]]


def view(console: Console) -> View:
    """What suits the console; use it in a ``with`` block, and call what it gives with each event."""
    return Bar(console) if console.is_terminal else Lines(console)


class Bar:
    """How many replays are over, which one goes on, and what time is left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._task: TaskID | None = None
        self._progress = Progress(
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]} left", markup=False),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
        )

    def __enter__(self) -> Callable[[TypingEvent], None]:
        self._progress.start()
        return self._show

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def _show(self, event: TypingEvent) -> None:
        match event:
            case Replaying():
                if self._task is None:
                    self._task = self._progress.add_task("", total=event.of, left="")
                left = duration(event.eta_s)
                self._progress.update(self._task, completed=event.done, description=event.what, left=left)
            case BenchReported():
                self._progress.stop()
                show(self._console, event.report, event.folder)


class Lines:
    """A line every ``LINE_S`` seconds, and the first."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._said_at: float | None = None

    def __enter__(self) -> Callable[[TypingEvent], None]:
        return self._show

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left to put away."""

    def _show(self, event: TypingEvent) -> None:
        match event:
            case Replaying():
                now = self._clock()
                if self._said_at is None or now - self._said_at >= LINE_S:
                    self._said_at = now
                    text = f"{event.done}/{event.of}, {event.what}, {duration(event.eta_s)} left"
                    self._console.print(text, markup=False, highlight=False, soft_wrap=True)
            case BenchReported():
                show(self._console, event.report, event.folder)


def show(console: Console, report: BenchReport, folder: str) -> None:
    """The figures in a table that fits 80 columns, the goals, and where the report is."""
    found = report_module.policy_table(report)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, head in enumerate(found.head):
        table.add_column(head, justify="right" if number else "left", no_wrap=True)
    for row in found.rows:
        table.add_row(*row)
    console.print(table, highlight=False)
    words = {True: "met", False: "not met", None: "not measured"}
    for goal in report.goals:
        text = f"{words[goal.met]}: {goal.what}: {report_module.number(goal.value)} ({goal.target})"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    for note in report.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"report: {folder}/{HTML}", markup=False, highlight=False, soft_wrap=True)
