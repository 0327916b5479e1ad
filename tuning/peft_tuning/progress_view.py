"""Two ways to show a run: a live line for people (rich), one JSON object per line for programs."""

from __future__ import annotations

from types import TracebackType
from typing import TextIO

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from peft_tuning.events import (
    CheckpointSaved,
    Evaluated,
    StepFinished,
    TrainingEvent,
    TrainingFinished,
    TrainingStarted,
    duration,
)


class JsonLines:
    """Writes each event as one line: ``{"type":"step","step":3,"loss":1.2,…}``; takes any tagged struct."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: msgspec.Struct) -> None:
        """Write ``event`` at once."""
        self._stream.write(msgspec.json.encode(event).decode() + "\n")
        self._stream.flush()


class LiveView:
    """A bar with the last figures; evaluations stay above it as lines. Use it in a ``with`` block."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> LiveView:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, event: TrainingEvent) -> None:
        """Show ``event``."""
        match event:
            case TrainingStarted():
                self._task = self._progress.add_task(
                    "", total=event.steps, completed=event.first_step, figures="first step"
                )
                self._progress.console.print(
                    f"{event.examples:,} examples, {event.trainable_parameters:,} trainable parameters"
                    + (f", going on after step {event.first_step}" if event.first_step else "")
                )
            case StepFinished() if self._task is not None:
                self._progress.update(self._task, completed=event.step, figures=figures(event))
            case Evaluated():
                best = "  best so far" if event.best else ""
                self._progress.console.print(f"step {event.step:>6}  validation loss {event.loss:.4f}{best}")
            case CheckpointSaved() | StepFinished():
                pass
            case TrainingFinished():
                loss = "" if event.best_loss is None else f", validation loss {event.best_loss:.4f}"
                early = ", stopped early" if event.stopped_early else ""
                self._progress.console.print(
                    f"{event.step} steps in {duration(event.seconds)}{early}; best: step {event.best_step}{loss}"
                )


def figures(step: StepFinished) -> str:
    """The figures of one step on one line."""
    return (
        f"loss {step.loss:.3f}  lr {step.learning_rate:.1e}  {step.tokens_per_s:,.0f} tokens/s  "
        f"{step.memory_bytes / 1e9:.1f} GB  {duration(step.eta_s)} left"
    )
