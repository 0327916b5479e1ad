"""An evaluation as people see it: bars on a terminal, a line now and then in a log; then the table of results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from peft_evaluation.report.tables import difference, measured, named, probability
from peft_evaluation.runner import AnswerVerified, EvaluationEvent, EvaluationReported
from peft_evaluation.runner import SampleAnswered as Answered
from peft_evaluation.scorers.metrics import METRICS, WHOLES
from peft_tuning.events import Loading, duration

SHOWN = 48
"""Characters of an answer."""
LINE_S = 30.0
"""A log gets a line this often."""

View = AbstractContextManager[Callable[[EvaluationEvent], None]]


def view(console: Console) -> View:
    """What suits the console; use it in a ``with`` block, and call what it gives with each event."""
    return Bars(console) if console.is_terminal else Lines(console)


class Bars:
    """What is loaded, then a bar with the scores so far and the item at hand."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[scores]}", markup=False),
            TextColumn("{task.fields[answer]}", markup=False, style="dim"),
            console=console,
            transient=True,
        )
        self._console = console
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Callable[[EvaluationEvent], None]:
        self._progress.start()
        return self._show

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def _show(self, event: EvaluationEvent) -> None:
        match event:
            case Loading():
                self._bar("loading", event.what, event.done, event.of)
            case Answered():
                self._hide("loading")
                first_line = event.text.partition("\n")[0][:SHOWN]
                standing = _standing(event.scores)
                self._bar("answers", event.strategy, event.done, event.of, scores=standing, answer=first_line)
            case AnswerVerified():
                self._hide("answers")
                self._bar("runs", "running answers", event.done, event.of, scores=_passed(event), answer=event.item)
            case EvaluationReported():
                for name in ("loading", "answers", "runs"):
                    self._hide(name)
                report(self._console, event)

    def _bar(self, name: str, what: str, done: int, of: int, *, scores: str = "", answer: str = "") -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task("", total=None, scores="", answer="")
        self._progress.update(
            self._tasks[name], description=what, completed=done, total=of or None, scores=scores, answer=answer
        )

    def _hide(self, name: str) -> None:
        if name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))


class Lines:
    """A line every ``LINE_S`` seconds; of answers and runs also the first and the last, of each strategy."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._what, self._said_at = "", clock()

    def __enter__(self) -> Callable[[EvaluationEvent], None]:
        return self._show

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left to put away."""

    def _show(self, event: EvaluationEvent) -> None:
        match event:
            case Loading():
                share = f" {event.done:,}/{event.of:,}" if event.of else ""
                # What is refused is refused while loading, and then that is the only line.
                self._say(self._what, f"{event.what}{share}", last=False)
            case Answered():
                facts = (f"{event.strategy} {event.done:,}/{event.of:,}", _standing(event.scores))
                left = f"{duration(event.eta_s)} left"
                self._say(event.strategy, ", ".join(filter(None, (*facts, left))), last=event.done == event.of)
            case AnswerVerified():
                text = f"running answers {event.done:,}/{event.of:,}, {_passed(event)}"
                self._say("running", text, last=event.done == event.of)
            case EvaluationReported():
                report(self._console, event)

    def _say(self, what: str, text: str, *, last: bool) -> None:
        now = self._clock()
        if last or what != self._what or now - self._said_at >= LINE_S:
            self._what, self._said_at = what, now
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def report(console: Console, event: EvaluationReported) -> None:
    """The results: a table, what differs, warnings, and where the report is."""
    table = Table(Column("strategy", no_wrap=True, overflow="fold"), "", Column("value [95 %]", no_wrap=True))
    for each in event.strategies:
        # A row for each figure: as columns they would not fit beside one another.
        metrics = [metric for metric in WHOLES if metric in each.metrics]
        for metric in metrics:
            name = each.id if metric == metrics[0] else ""
            value = measured(metric, each.metrics[metric])
            table.add_row(name, METRICS[metric].label, value, end_section=metric == metrics[-1])
    console.print(table)
    for found in event.comparisons:
        console.print(
            f"{found.strategy}, {METRICS[found.metric].label}: {found.judgement.value} "
            f"({difference(found)}, p {probability(found.p_adjusted)})",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for warning in event.warnings:
        console.print(f"note: {warning}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"report: {event.folder}/report.html (`peft-daemon report open {Path(event.folder).name}`)",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _standing(scores: Mapping[str, float]) -> str:
    """``exact match, top 1 8.7 %, chrF 47.9``."""
    return ", ".join(f"{METRICS[metric].label} {named(metric, value)}" for metric, value in scores.items())


def _passed(event: AnswerVerified) -> str:
    return f"{event.passed:,} passed ({100 * event.passed / event.done:.0f} %)"
