"""What a system under test is to the replay: something that is told of edits and asked for suggestions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import psutil

from peft_evaluation.typing_benchmark.screen import GhostText
from peft_evaluation.typing_benchmark.traces import TraceEdit


@dataclass(frozen=True)
class DocumentView:
    """A document as the editor has it."""

    file: str
    """Its name in the workspace."""
    text: str
    cursor: int
    version: int


@dataclass(frozen=True)
class PolicyAnswer:
    """What a request came to."""

    ghost: GhostText | None
    cached: bool | None = None
    """Whether the model was not asked; None where that cannot be known."""


class ResourceUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What was spent since the session began. None: this system does not tell."""

    requests: int = 0
    """Requests to the model, those included that nobody waited for."""
    prompt_evaluated: int | None = None
    prompt_reused: int | None = None
    decoded: int | None = None
    cpu_s: float = 0.0
    """Of all its processes together."""
    kept: int | None = None
    """Requests answered from an earlier answer ..."""
    joined: int | None = None
    """... and those that were given a generation already under way."""


class PolicySession(Protocol):
    """One system at work on one workspace, from ``start`` to ``stop``."""

    on_more: Callable[[], None] | None
    """Called when more of the last answer has come: the editor asks again."""

    async def start(self) -> None:
        """Start all its processes; returns when the model is loaded."""
        ...

    async def stop(self) -> None:
        """End them; safe to call whatever happened."""
        ...

    def opened(self, view: DocumentView) -> None:
        """A document is shown for the first time."""
        ...

    def shown(self, view: DocumentView, before: DocumentView) -> None:
        """Another open document is shown again, instead of ``before``."""
        ...

    def changed(self, view: DocumentView, edit: TraceEdit, before: DocumentView) -> None:
        """A document was edited."""
        ...

    def moved(self, view: DocumentView) -> None:
        """The cursor was set elsewhere without an edit."""
        ...

    def saved(self, view: DocumentView) -> None:
        """A document was written to the disk."""
        ...

    async def suggest(self, view: DocumentView) -> PolicyAnswer:
        """The suggestion at the cursor; cancelled when the document changes."""
        ...

    async def totals(self) -> ResourceUsage:
        """What was spent so far."""
        ...


@dataclass(frozen=True)
class BenchModel:
    """The model and the processor's share all policies get."""

    model_id: str
    model_path: Path
    threads: int
    """0: as many as the engine takes by itself."""


# CPU seconds of processes and their children, those included that end meanwhile (as of the last look).


class CpuMeter:
    """Counts from the first look on. ``roots`` tells the ids of the processes whose trees count."""

    def __init__(self, roots: Callable[[], Iterable[int]]) -> None:
        self._roots = roots
        self._first: dict[tuple[int, float], float] = {}
        self._last: dict[tuple[int, float], float] = {}
        self._begun = False

    def look(self) -> None:
        """Read the clocks of all there are now."""
        for key, seconds in self._now():
            if key not in self._first:
                # One that began after the first look counts as a whole.
                self._first[key] = 0.0 if self._begun else seconds
            self._last[key] = seconds
        self._begun = True

    @property
    def seconds(self) -> float:
        """User and system time between the first look and the last."""
        return round(sum(self._last[key] - self._first[key] for key in self._last), 2)

    def _now(self) -> Iterable[tuple[tuple[int, float], float]]:
        for root in self._roots():
            try:
                process = psutil.Process(root)
                family = [process, *process.children(recursive=True)]
            except psutil.Error:
                continue
            for each in family:
                try:
                    times = each.cpu_times()
                    yield (each.pid, each.create_time()), times.user + times.system
                except psutil.Error:
                    continue
