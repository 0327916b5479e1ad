"""An evaluation on a terminal: what is loaded, then a bar with the item at hand."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from peft_evaluation.metrics.catalogue import METRICS, WHOLES
from peft_evaluation.reports.figures import difference, measured, probability
from peft_evaluation.run import Event, Ran, Reported
from peft_evaluation.run import Progress as Answered
from peft_tuning.progress import Loading

SHOWN = 48
"""Characters of an answer."""


class RunView:
    """Use it in a ``with`` block."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[answer]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._console = console
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> RunView:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show ``event``."""
        match event:
            case Loading():
                self._show("loading", event.what, event.done, event.of, "")
            case Answered():
                self._hide("loading")
                first_line = event.text.partition("\n")[0][:SHOWN]
                self._show("answers", event.strategy, event.done, event.of, first_line)
            case Ran():
                self._hide("answers")
                self._show("runs", "running answers", event.done, event.of, f"{event.item}: {event.outcome}")
            case Reported():
                for name in ("loading", "answers", "runs"):
                    self._hide(name)
                self._report(event)

    def _report(self, event: Reported) -> None:
        metrics = [m for m in WHOLES if any(m in each.metrics for each in event.strategies)]
        table = Table("strategy", *(METRICS[m].label for m in metrics))
        for each in event.strategies:
            table.add_row(each.id, *(measured(m, each.metrics[m]) if m in each.metrics else "—" for m in metrics))
        self._console.print(table)
        for found in event.comparisons:
            self._console.print(
                f"{found.strategy}, {METRICS[found.metric].label}: {found.judgement.value} "
                f"({difference(found)}, p {probability(found.p_adjusted)})",
                markup=False,
                highlight=False,
            )
        for warning in event.warnings:
            self._console.print(f"note: {warning}", markup=False, highlight=False)
        self._console.print(
            f"report: {event.folder}/report.html (`peft-daemon report open {Path(event.folder).name}`)",
            markup=False,
            highlight=False,
        )

    def _show(self, name: str, what: str, done: int, of: int, answer: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task("", total=None, answer="")
        self._progress.update(self._tasks[name], description=what, completed=done, total=of or None, answer=answer)

    def _hide(self, name: str) -> None:
        if name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))
