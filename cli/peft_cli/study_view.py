"""The progress and results of studies, and what one takes: a line on a terminal, lines in a log, tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from peft_cli.evaluation_view import passed, print_line, scores_so_far
from peft_cli.progress_view import ThrottledLog
from peft_evaluation.report.tables import duration as format_duration
from peft_evaluation.report.tables import format_interval, size
from peft_evaluation.runner import AnswerVerified, SampleAnswered
from peft_evaluation.scorers.metrics import METRICS
from peft_evaluation.study import report as study_report
from peft_evaluation.study.forecast import StudyForecast
from peft_evaluation.study.runner import CellEnded, CellStarted, StudyEvent, StudyReported
from peft_tuning.events import Evaluated, Loading, StepFinished, TrainingStarted, duration


class StudyView:
    """Shows the current cell of a study: a line that changes on a terminal, a line now and then in a log.

    Use it in a ``with`` block.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._log = ThrottledLog(console, clock)
        self._status: Status | None = None
        self._cell = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def __call__(self, event: StudyEvent) -> None:
        """Show an event."""
        match event:
            case CellStarted():
                self._cell = f"cell {event.number} of {event.of}: {event.cell}"
                self._show(event.step, step=f"{self._cell} {event.step}")
            case CellEnded():
                self._clear()
                ended = f"failed: {event.reason}" if event.reason else "done"
                if event.eta_s:
                    ended += f"; about {format_duration(event.eta_s)} left"
                print_line(self._console, f"cell {event.number} of {event.of}: {event.cell}: {ended}")
                self._cell = "scoring"
            case StudyReported():
                self._clear()
                print_study(self._console, event)
            case _ if text := _step_words(event):
                self._show(text)
            case _:
                pass

    def _show(self, text: str, *, step: str = "") -> None:
        line = f"{self._cell}: {text}" if self._cell else text
        if not self._console.is_terminal:
            self._log.print(line, step=step)
            return
        if self._status is None:
            self._status = self._console.status("")
            self._status.start()
        self._status.update(escape(line))

    def _clear(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def _step_words(event: StudyEvent) -> str:
    """Say how far a step is: ``step 10 of 38, loss 1.234, 12:05 left``; empty for an event that says nothing of it."""
    text = ""
    match event:
        case Loading():
            text = event.what + (f" {event.done:,}/{event.of:,}" if event.of else "")
        case TrainingStarted():
            text = f"step {event.first_step} of {event.steps}"
        case StepFinished():
            text = f"step {event.step} of {event.steps}, loss {event.loss:.3f}, {duration(event.eta_s)} left"
        case Evaluated():
            text = f"step {event.step}, validation loss {event.loss:.4f}"
        case SampleAnswered():
            facts = (f"answer {event.done:,} of {event.of:,}", scores_so_far(event.scores))
            text = ", ".join(filter(None, (*facts, f"{duration(event.eta_s)} left")))
        case AnswerVerified():
            text = f"running answers {event.done:,} of {event.of:,}, {passed(event)}"
    return text


def print_study(console: Console, event: StudyReported) -> None:
    """Print quality and costs of each row, what is better than the baseline, and where the report is."""
    for found in event.tables:
        metric = study_report.headline(found)
        table = Table(
            box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=study_report.table_title(found), title_justify="left"
        )
        heads = ("", METRICS[metric].label if metric else "", "trained", "memory", "tuning", "answering")
        for number, head in enumerate(heads):
            table.add_column(head, justify="right" if number else "left", no_wrap=bool(number))
        for row in found.rows:
            tuning, answering = row.tuning, row.answering
            memory = tuning or answering
            table.add_row(
                row.name,
                format_interval(metric, row.metrics[metric]) if metric in row.metrics else study_report.NONE,
                f"{tuning.trainable_parameters:,}" if tuning else study_report.NONE,
                size(memory.peak_memory_bytes if memory else None),
                format_duration(tuning.seconds if tuning else None),
                format_duration(answering.seconds if answering else None),
            )
        console.print(table, highlight=False)
        for line in study_report.verdicts(found):
            print_line(console, line)
        for row in found.rows:
            for failure in row.failures:
                print_line(console, f"note: {row.name} has no result: {failure}")
    print_line(console, f"report: {event.folder}/study.html (`peft-daemon report open {event.name}`)")


def print_forecast(console: Console, found: StudyForecast) -> None:
    """Print what each cell of a study takes, and all of them together."""
    done = sum(cell.done for cell in found.cells)
    print_line(console, f"{found.name}: {len(found.cells)} cells, {done} of them done")
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, head in enumerate(("", "trained", "tuning", "answering", "memory")):
        table.add_column(head, justify="right" if number else "left", no_wrap=bool(number))
    for cell in found.cells:
        table.add_row(
            cell.cell,
            "done" if cell.done else f"{cell.trainable_parameters:,}" if cell.trainable_parameters else "—",
            format_duration(cell.tuning_s),
            format_duration(cell.answering_s),
            size(cell.memory_bytes or None),
        )
    console.print(table, highlight=False)
    for cell in found.cells:
        if cell.reason:
            print_line(console, f"note: {cell.cell} cannot be done: {cell.reason}")
    available = f" of {size(found.available_bytes)} available" if found.available_bytes else ""
    fits = "" if found.fits else ": this will not fit"
    print_line(
        console, f"in all {format_duration(found.seconds)}, {size(found.memory_bytes)} at the peak{available}{fits}"
    )
