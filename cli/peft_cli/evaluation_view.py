"""The progress and results of evaluations and typing benchmarks: bars on a terminal, lines in a log, tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from peft_cli.progress_view import BarView, ThrottledLog
from peft_evaluation.report.tables import Table as FigureTable
from peft_evaluation.report.tables import difference, format_interval, format_value, probability
from peft_evaluation.runner import AnswerVerified, EvaluationEvent, EvaluationReported, SampleAnswered
from peft_evaluation.scorers.metrics import METRICS, WHOLES
from peft_evaluation.typing_benchmark import report as report_module
from peft_evaluation.typing_benchmark.results import BenchReport
from peft_evaluation.typing_benchmark.run import BenchReported, Replaying, TypingEvent
from peft_tuning.events import Loading, duration

MAX_ANSWER_CHARS = 48
"""Most characters of an answer that are shown during an evaluation."""


def evaluation_view(console: Console) -> AbstractContextManager[Callable[[EvaluationEvent], None]]:
    """Return the view that suits the console; use it in a ``with`` block, and call its value with each event."""
    return EvaluationBars(console) if console.is_terminal else nullcontext(EvaluationLog(console))


class EvaluationBars(BarView):
    """Shows what is loaded, then a bar with the scores so far and the current item."""

    def __init__(self, console: Console) -> None:
        super().__init__(
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[scores]}", markup=False),
                TextColumn("{task.fields[answer]}", markup=False, style="dim"),
                console=console,
                transient=True,
            )
        )
        self._console = console
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, event: EvaluationEvent) -> None:
        """Show an event."""
        match event:
            case Loading():
                self._update("loading", event.what, event.done, event.of)
            case SampleAnswered():
                self._hide("loading")
                first_line = event.text.partition("\n")[0][:MAX_ANSWER_CHARS]
                scores = scores_so_far(event.scores)
                self._update("answers", event.strategy, event.done, event.of, scores=scores, answer=first_line)
            case AnswerVerified():
                self._hide("answers")
                scores = passed(event)
                self._update("runs", "running answers", event.done, event.of, scores=scores, answer=event.item)
            case EvaluationReported():
                for name in ("loading", "answers", "runs"):
                    self._hide(name)
                print_evaluation(self._console, event)

    def _update(self, name: str, what: str, done: int, of: int, *, scores: str = "", answer: str = "") -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task("", total=None, scores="", answer="")
        self._progress.update(
            self._tasks[name], description=what, completed=done, total=of or None, scores=scores, answer=answer
        )

    def _hide(self, name: str) -> None:
        if name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))


class EvaluationLog:
    """Prints a line from time to time, and always the first and last of each strategy's answers and of the runs."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._log = ThrottledLog(console, clock)

    def __call__(self, event: EvaluationEvent) -> None:
        """Print an event if it is time."""
        match event:
            case Loading():
                share = f" {event.done:,}/{event.of:,}" if event.of else ""
                # Not at once, so that an error while loading is the only line.
                self._log.print(f"{event.what}{share}")
            case SampleAnswered():
                facts = (f"{event.strategy} {event.done:,}/{event.of:,}", scores_so_far(event.scores))
                text = ", ".join(filter(None, (*facts, f"{duration(event.eta_s)} left")))
                self._log.print(text, step=event.strategy, last=event.done == event.of)
            case AnswerVerified():
                text = f"running answers {event.done:,}/{event.of:,}, {passed(event)}"
                self._log.print(text, step="running", last=event.done == event.of)
            case EvaluationReported():
                print_evaluation(self._console, event)


def print_evaluation(console: Console, event: EvaluationReported) -> None:
    """Print the results: a table, the differences, warnings, and where the report is."""
    table = Table(Column("strategy", no_wrap=True, overflow="fold"), "", Column("value [95 %]", no_wrap=True))
    for each in event.strategies:
        # A row for each figure: as columns they would be too wide.
        metrics = [metric for metric in WHOLES if metric in each.metrics]
        for metric in metrics:
            name = each.id if metric == metrics[0] else ""
            value = format_interval(metric, each.metrics[metric])
            table.add_row(name, METRICS[metric].label, value, end_section=metric == metrics[-1])
    console.print(table)
    for found in event.comparisons:
        print_line(
            console,
            f"{found.strategy}, {METRICS[found.metric].label}: {found.judgement.value} "
            f"({difference(found)}, p {probability(found.p_adjusted)})",
        )
    for warning in event.warnings:
        print_line(console, f"note: {warning}")
    name = Path(event.folder).name
    print_line(console, f"report: {event.folder}/report.html (`peft-daemon report open {name}`)")


def typing_view(console: Console) -> AbstractContextManager[Callable[[TypingEvent], None]]:
    """Return the view that suits the console; use it in a ``with`` block, and call its value with each event."""
    return TypingBar(console) if console.is_terminal else nullcontext(TypingLog(console))


class TypingBar(BarView):
    """Shows the number of finished replays, the current one, and the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._task: TaskID | None = None
        super().__init__(
            Progress(
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]} left", markup=False),
                TextColumn("{task.description}", markup=False),
                console=console,
                transient=True,
            )
        )

    def __call__(self, event: TypingEvent) -> None:
        """Show an event."""
        match event:
            case Replaying():
                if self._task is None:
                    self._task = self._progress.add_task("", total=event.of, left="")
                left = duration(event.eta_s)
                self._progress.update(self._task, completed=event.done, description=event.what, left=left)
            case BenchReported():
                self._progress.stop()
                print_typing_report(self._console, event.report, event.folder)


class TypingLog:
    """Prints a line for the first replay, and others from time to time."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._log = ThrottledLog(console, clock)

    def __call__(self, event: TypingEvent) -> None:
        """Print an event if it is time."""
        match event:
            case Replaying():
                text = f"{event.done}/{event.of}, {event.what}, {duration(event.eta_s)} left"
                self._log.print(text, step="replays")
            case BenchReported():
                print_typing_report(self._console, event.report, event.folder)


def print_typing_report(console: Console, report: BenchReport, folder: str) -> None:
    """Print the figures in a table that fits 80 columns, the goals, and where the report is."""
    print_figures(console, report_module.policy_table(report))
    words = {True: "met", False: "not met", None: "not measured"}
    for goal in report.goals:
        print_line(console, f"{words[goal.met]}: {goal.what}: {report_module.number(goal.value)} ({goal.target})")
    for note in report.notes:
        print_line(console, f"note: {note}")
    print_line(console, f"report: {folder}/{report_module.TYPING_PAGES.page}")


def print_figures(console: Console, found: FigureTable) -> None:
    """Print a benchmark's table: a row for each figure, a column for each policy."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, head in enumerate(found.head):
        table.add_column(head, justify="right" if number else "left", no_wrap=True)
    for row in found.rows:
        table.add_row(*row)
    console.print(table, highlight=False)


def print_line(console: Console, text: str) -> None:
    """Print text as it is, however long it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def scores_so_far(scores: Mapping[str, float]) -> str:
    """Write the scores so far: ``exact match, top 1 8.7 %, chrF 47.9``."""
    return ", ".join(f"{METRICS[metric].label} {format_value(metric, value)}" for metric, value in scores.items())


def passed(event: AnswerVerified) -> str:
    """Write how many answers have passed: ``12 passed (60 %)``."""
    return f"{event.passed:,} passed ({100 * event.passed / event.done:.0f} %)"
