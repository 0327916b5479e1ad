"""An evaluation on a terminal: what is loaded, then a bar with the item at hand."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from peft_evaluation.run import Event, Loading
from peft_evaluation.run import Progress as Answered

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
        )
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

    def _show(self, name: str, what: str, done: int, of: int, answer: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task("", total=None, answer="")
        self._progress.update(self._tasks[name], description=what, completed=done, total=of or None, answer=answer)

    def _hide(self, name: str) -> None:
        if name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))
