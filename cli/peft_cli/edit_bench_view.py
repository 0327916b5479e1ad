"""The progress and results of the benchmark of next edits: a bar on a terminal, lines in a log, a table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from peft_cli.evaluation_view import print_figures, print_line
from peft_cli.progress_view import BarView, ThrottledLog
from peft_evaluation.edit_benchmark import report as report_module
from peft_evaluation.edit_benchmark.results import EditBenchReport
from peft_evaluation.edit_benchmark.run import Asking, EditBenchEvent, EditBenchReported
from peft_tuning.events import Loading, duration


def edits_view(console: Console) -> AbstractContextManager[Callable[[EditBenchEvent], None]]:
    """Return the view that suits the console; use it in a ``with`` block, and call its value with each event."""
    return EditsBar(console) if console.is_terminal else nullcontext(EditsLog(console))


class EditsBar(BarView):
    """Shows the number of finished trials, the figures so far, and the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._task: TaskID | None = None
        super().__init__(
            Progress(
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}", markup=False),
                TextColumn("{task.description}", markup=False),
                console=console,
                transient=True,
            )
        )

    def __call__(self, event: EditBenchEvent) -> None:
        """Show an event."""
        if self._task is None:
            self._task = self._progress.add_task("", total=None, left="")
        match event:
            case Loading():
                self._progress.update(self._task, description=event.what)
            case Asking():
                left = f"{duration(event.eta_s)} left" if event.eta_s else ""
                self._progress.update(
                    self._task, completed=event.done, total=event.of, description=so_far(event), left=left
                )
            case EditBenchReported():
                self._progress.stop()
                print_edit_report(self._console, event.report, event.folder)


class EditsLog:
    """Prints a line for the first trial, and others from time to time."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._log = ThrottledLog(console, clock)

    def __call__(self, event: EditBenchEvent) -> None:
        """Print an event if it is time."""
        match event:
            case Loading():
                self._log.print(event.what)
            case Asking():
                left = f", {duration(event.eta_s)} left" if event.eta_s else ""
                self._log.print(f"{event.done}/{event.of}, {so_far(event)}{left}", step="trials")
            case EditBenchReported():
                print_edit_report(self._console, event.report, event.folder)


def so_far(event: Asking) -> str:
    """Write the figures so far: ``ours 12 % exact, 95 % quiet``; what is asked where there are none."""
    names = dict.fromkeys((*event.exact, *event.quiet))
    shares = []
    for name in names:
        parts = [
            f"{100 * share[name]:.0f} % {what}"
            for what, share in (("exact", event.exact), ("quiet", event.quiet))
            if name in share
        ]
        shares.append(f"{name} {', '.join(parts)}")
    return "; ".join(shares) or event.what


def print_edit_report(console: Console, report: EditBenchReport, folder: str) -> None:
    """Print the figures in a table that fits 80 columns, the comparisons, and where the report is."""
    print_figures(console, report_module.figure_table(report, interval=False))
    for each in report_module.comparison_table(report).rows:
        policy, against, of, difference, *_, p, verdict = each
        print_line(console, f"{policy} against {against}, {of}: {verdict} ({difference}, p {p})")
    for note in report.notes:
        print_line(console, f"note: {note}")
    print_line(console, f"report: {folder}/{report_module.EDITS_PAGES.page}")
