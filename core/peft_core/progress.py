"""How long work reports its progress. Drawing it is the caller's business."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

Event = TypeVar("Event")

OnProgress = Callable[[Event], None]
"""Called with each event of a long work, in the thread that does the work."""


class Progress(Protocol):
    """Receives the progress of one pull, always from the thread that called ``pull``."""

    def note(self, text: str) -> None:
        """A line worth showing: a source is tried, a source failed, another pull is waited for."""

    def advance(self, done: int, total: int) -> None:
        """``done`` of ``total`` bytes of the model are here; may go back when a source has to start over."""


class Silent:
    """Shows nothing."""

    def note(self, text: str) -> None:
        """Ignore."""

    def advance(self, done: int, total: int) -> None:
        """Ignore."""
