"""The progress of long work: bars on a terminal, lines in a log, JSON for programs.

The packages below send events and print nothing. The views of evaluations are in ``evaluation_view``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

import msgspec
from rich import progress as bars
from rich.console import Console
from rich.status import Status

from peft_tuning.events import (
    AdapterRegistered,
    CheckpointSaved,
    DataLoaded,
    Evaluated,
    GateVerdict,
    Loading,
    ModelWritten,
    StepFinished,
    TrainingEvent,
    TrainingFinished,
    TrainingStarted,
    TuneEvent,
    duration,
)

if TYPE_CHECKING:
    from peft_core.http_download import DownloadProgress
    from peft_daemon.engines.builds.builder import BuildProgress
    from peft_daemon.requantize.optimizer import OptimizeEvent

LOG_INTERVAL_S = 30.0
"""Time between two lines of a log, unless a step begins or ends."""
STEP_INTERVAL_S = 2.0


class BarView:
    """A progress display that is on the screen during its ``with`` block."""

    def __init__(self, progress: bars.Progress) -> None:
        self._progress = progress

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class JsonLines:
    """Writes each event as one line: ``{"type":"step","step":3,"loss":1.2,…}``; takes any tagged struct."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: msgspec.Struct) -> None:
        """Write an event at once."""
        self._stream.write(msgspec.json.encode(event).decode() + "\n")
        self._stream.flush()


class ThrottledLog:
    """Prints a line every ``LOG_INTERVAL_S`` seconds, and at once when a step begins or ends."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._step, self._printed_at = "", clock()

    def print(self, text: str, *, step: str = "", last: bool = False) -> None:
        """Print a line if it is time; ``step``: the step it is about, if not the current one."""
        now = self._clock()
        begins = bool(step) and step != self._step
        if last or begins or now - self._printed_at >= LOG_INTERVAL_S:
            self._step, self._printed_at = step or self._step, now
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class NoteLines:
    """Notes of a download as lines on standard error, without a bar."""

    def note(self, text: str) -> None:
        """Print a note."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def advance(self, done: int, total: int) -> None:
        """Do nothing: there is no bar."""


class StepLines:
    """Steps as lines on standard error: start and end of each, on a terminal also a line every two seconds."""

    def __init__(self) -> None:
        self._step, self._printed_at = "", 0.0

    def __call__(self, event: OptimizeEvent) -> None:
        """Print a line if it is time."""
        begins, ends, now = event.step != self._step, event.done >= event.total, time.monotonic()
        if begins or ends or (sys.stderr.isatty() and now - self._printed_at > STEP_INTERVAL_S):
            sys.stderr.write(f"{event.step}: {event.done / event.total:.0%}\n")
            sys.stderr.flush()
            self._step, self._printed_at = event.step, now


@contextmanager
def download_view() -> Iterator[DownloadProgress]:
    """Show a download on standard error: a bar with bytes, speed and time left on a terminal, else its notes."""
    if not sys.stderr.isatty():
        yield NoteLines()
        return
    columns = (
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as drawing:
        yield DownloadBar(drawing)


class DownloadBar:
    """A download as one bar that appears with the first byte; notes scroll by above it."""

    def __init__(self, drawing: bars.Progress) -> None:
        self._drawing = drawing
        self._task: bars.TaskID | None = None

    def note(self, text: str) -> None:
        """Print a note above the bar."""
        self._drawing.console.print(text, markup=False, highlight=False)

    def advance(self, done: int, total: int) -> None:
        """Move the bar."""
        if self._task is None:
            # Bytes from an earlier pull must not count as speed.
            self._task = self._drawing.add_task("", total=total, completed=done)
        self._drawing.update(self._task, completed=done)


@contextmanager
def build_view() -> Iterator[BuildProgress]:
    """Show a build on standard error: its steps, and on a terminal a bar with files and time left, else lines."""
    if not sys.stderr.isatty():
        yield BuildLines()
        return
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[left]}"),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as drawing:
        yield BuildBar(drawing)


class BuildLines(NoteLines):
    """A build as lines on standard error: its steps, and every half a minute how much is compiled."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._estimate = clock, TimeLeft(clock)
        self._printed_at = -LOG_INTERVAL_S

    def compiled(self, done: int, total: int) -> None:
        """Print a line if it is time."""
        left, now = self._estimate(done, total), self._clock()
        if done == total or now - self._printed_at >= LOG_INTERVAL_S:
            self._printed_at = now
            self.note(f"compiled {done} of {total}{left and f', {left}'}")


class BuildBar(DownloadBar):
    """A build as a bar, of the download and then of the files that are compiled; its steps scroll by above it."""

    def __init__(self, drawing: bars.Progress) -> None:
        super().__init__(drawing)
        self._compiling: bars.TaskID | None = None
        self._estimate = TimeLeft()

    def advance(self, done: int, total: int) -> None:
        """Move the bar of the download, in MB."""
        self.draw("fetching, MB", done // 1_000_000, total // 1_000_000, "")

    def compiled(self, done: int, total: int) -> None:
        """Move the bar of the compiler."""
        self.draw("compiled", done, total, self._estimate(done, total))

    def draw(self, what: str, done: int, total: int, left: str) -> None:
        """Show ``done`` of ``total`` in the one bar."""
        if self._compiling is None:
            self._compiling = self._drawing.add_task(what, left=left)
        self._drawing.update(self._compiling, description=what, total=total, completed=done, left=left)


class TimeLeft:
    """Estimates how long the rest takes, from what was done since the first call."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, int] | None = None

    def __call__(self, done: int, total: int) -> str:
        """Return the time left in words, empty if it cannot be told yet."""
        began, before = self._first = self._first or (self._clock(), done)
        passed, made = self._clock() - began, done - before
        return f"{duration((total - done) * passed / made)} left" if made > 0 and done < total else ""


class TuningView:
    """A tuning run: loading, the training bar, the gate's verdict, where the adapter is used.

    Shows one thing at a time: a status line, or the training bar. In a log, lines now and then are in their place. Use
    it in a ``with`` block.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._log = None if console.is_terminal else ThrottledLog(console, clock)
        self._shown = ExitStack()
        self._status: Status | None = None
        self._training: TrainingBar | None = None

    def __enter__(self) -> TuningView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.close()

    def __call__(self, event: TuneEvent) -> None:
        """Show an event."""
        match event:
            case Loading():
                share = f" {event.done:,}/{event.of:,}" if event.of else ""
                self._show_status(f"{event.what}{share}")
            case DataLoaded():
                self._print(
                    f"{event.name}: {event.train:,} examples to learn, {event.validation:,} to choose by, "
                    f"{event.test:,} to judge by; licence: {event.licence}"
                )
                self._print(event.provenance)
            case GateVerdict():
                self._print(event.reason)
                if event.forgets:
                    before, after = event.general_served.nats, event.general_adapter.nats
                    self._console.print(
                        f"warning: completions of other code get worse: {before:.3f} → {after:.3f} nats per token"
                    )
            case AdapterRegistered():
                where = (
                    f"in {event.repository}" if event.repository else "in all folders without a setting of their own"
                )
                use = (
                    f"serves {' and '.join(event.in_use)} {where} from the next request on"
                    if event.in_use
                    else f"is not in use ({event.why_not})"
                )
                if not event.in_use and not event.refused:
                    use += f"; `peft-daemon adapters use {event.name}` would change that"
                self._print(f"{event.name} ({event.digest[:12]}) {use}")
                self._print(f"card and curves: {event.folder}")
            case ModelWritten():
                self._print(f"the tuned model: {event.folder}")
            case TrainingStarted():
                self._clear()
                self._training = self._shown.enter_context(TrainingBar(self._console))
                self._training(event)
            case _ if self._training is not None:
                if self._log is not None and isinstance(event, StepFinished):
                    self._log.print(f"step {event.step}/{event.steps}  {_figures(event)}")
                self._training(event)
                if isinstance(event, TrainingFinished):
                    self._clear()
            case _:
                pass

    def _print(self, text: str) -> None:
        self._clear()
        self._console.print(text, markup=False, highlight=False)

    def _show_status(self, text: str) -> None:
        if self._log is not None:
            self._log.print(text)
        if self._status is None:
            self._clear()
            self._status = self._shown.enter_context(self._console.status(text))
        self._status.update(text)

    def _clear(self) -> None:
        self._shown.close()
        self._status = self._training = None


class TrainingBar(BarView):
    """A bar with the last figures; evaluations stay above it as lines. Use it in a ``with`` block."""

    def __init__(self, console: Console) -> None:
        super().__init__(
            bars.Progress(
                bars.TextColumn("step"),
                bars.MofNCompleteColumn(),
                bars.BarColumn(),
                bars.TextColumn("{task.fields[figures]}"),
                console=console,
            )
        )
        self._task: bars.TaskID | None = None

    def __call__(self, event: TrainingEvent) -> None:
        """Show an event."""
        match event:
            case TrainingStarted():
                self._task = self._progress.add_task(
                    "", total=event.steps, completed=event.first_step, figures="first step"
                )
                self._progress.console.print(
                    f"{event.examples:,} examples, {event.trainable_parameters:,} trainable parameters"
                    + (f", continuing after step {event.first_step}" if event.first_step else "")
                )
            case StepFinished() if self._task is not None:
                self._progress.update(self._task, completed=event.step, figures=_figures(event))
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


def _figures(step: StepFinished) -> str:
    """Write the figures of one step on one line."""
    return (
        f"loss {step.loss:.3f}  lr {step.learning_rate:.1e}  {step.tokens_per_s:,.0f} tokens/s  "
        f"{step.memory_bytes / 1e9:.1f} GB  {duration(step.eta_s)} left"
    )
