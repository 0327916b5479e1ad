"""How long work reports its progress. Drawing it is the caller's business."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Event = TypeVar("Event")

OnProgress = Callable[[Event], None]
"""Called with each event of a long work, in the thread that does the work."""
