"""A run on a terminal: what is loaded and scored, the training bar, the verdict, what became of the adapter."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType

from rich.console import Console
from rich.status import Status

from peft_tuning.events import (
    AdapterRegistered,
    GateVerdict,
    Loading,
    ModelWritten,
    TrainingFinished,
    TrainingStarted,
    TuneEvent,
)
from peft_tuning.progress_view import LiveView


def quiet(_event: TuneEvent) -> None:
    """Shows nothing."""


class RunView:
    """Shows one thing at a time: a status line, or training's own view. Use it in a ``with`` block."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = ExitStack()
        self._status: Status | None = None
        self._training: LiveView | None = None

    def __enter__(self) -> RunView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.close()

    def __call__(self, event: TuneEvent) -> None:
        """Show ``event``."""
        match event:
            case Loading():
                share = f" {event.done:,}/{event.of:,}" if event.of else ""
                self._say(f"{event.what}{share}")
            case GateVerdict():
                self._clear()
                self._console.print(event.reason, markup=False, highlight=False)
                if event.forgets:
                    before, after = event.general_base.similarity, event.general_adapter.similarity
                    self._console.print(f"warning: general code suffers: similarity {before:.3f} → {after:.3f}")
            case AdapterRegistered():
                self._clear()
                where = f"in {event.repository}" if event.repository else "everywhere without a choice of its own"
                use = (
                    f"serves {' and '.join(event.in_use)} {where} from the next request on"
                    if event.in_use
                    else f"is not in use ({event.why_not}); `peft-daemon adapters use {event.name}` would change that"
                )
                self._console.print(f"{event.name} ({event.digest[:12]}) {use}", markup=False, highlight=False)
                self._console.print(f"card and curves: {event.folder}", markup=False, highlight=False)
            case ModelWritten():
                self._clear()
                self._console.print(f"the tuned model: {event.folder}", markup=False, highlight=False)
            case TrainingStarted():
                self._clear()
                self._training = self._shown.enter_context(LiveView(self._console))
                self._training(event)
            case _ if self._training is not None:
                self._training(event)
                if isinstance(event, TrainingFinished):
                    self._clear()
            case _:
                pass

    def _say(self, text: str) -> None:
        if self._status is None:
            self._clear()
            self._status = self._shown.enter_context(self._console.status(text))
        self._status.update(text)

    def _clear(self) -> None:
        self._shown.close()
        self._status = self._training = None
