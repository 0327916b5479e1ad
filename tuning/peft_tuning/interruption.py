"""SIGTERM and Ctrl-C end a run at the next safe place instead of in the middle of a step."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

import torch


class Interruption:
    """While in a ``with`` block, the first signal only sets ``requested``; a second Ctrl-C ends the program at once."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave

    def agreed(self) -> bool:
        """Whether any process of the run was asked to stop: all have to leave at the same step."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return self.requested
        asked = torch.tensor(int(self.requested), device=_device())
        torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
        return bool(asked.item())

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


def _device() -> torch.device:
    nccl = torch.distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
