"""The interface of a system under test: it is notified of edits and asked for suggestions."""

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
    """A document and the cursor in it."""

    file: str
    """Its name in the workspace."""
    text: str
    cursor: int
    version: int


@dataclass(frozen=True)
class PolicyAnswer:
    """The answer to a request."""

    ghost: GhostText | None
    """The suggestion; None for none."""
    cached: bool | None = None
    """Whether the answer was given without the model; None: not known."""


class ResourceUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What a session has used since its start. None: the system does not report it."""

    requests: int = 0
    """Requests to the model, including cancelled ones and ones made in advance."""
    prompt_evaluated: int | None = None
    prompt_reused: int | None = None
    decoded: int | None = None
    cpu_s: float = 0.0
    """Processor time of all its processes."""
    kept: int | None = None
    """Requests answered from an earlier answer."""
    joined: int | None = None
    """Requests answered from a generation that was already in progress."""


class PolicySession(Protocol):
    """One system that runs on one workspace, from ``start`` to ``stop``."""

    on_more: Callable[[], None] | None
    """Called when more of the last answer is available; the editor then requests again."""

    async def start(self) -> None:
        """Start all processes of the system; returns when the model is loaded."""
        ...

    async def stop(self) -> None:
        """End all processes; may be called in every state."""
        ...

    def opened(self, view: DocumentView) -> None:
        """Notify that a document is shown for the first time."""
        ...

    def shown(self, view: DocumentView, before: DocumentView) -> None:
        """Notify that another open document is shown again, instead of ``before``."""
        ...

    def changed(self, view: DocumentView, edit: TraceEdit, before: DocumentView) -> None:
        """Notify that a document was edited."""
        ...

    def moved(self, view: DocumentView) -> None:
        """Notify that the cursor was moved without an edit."""
        ...

    def saved(self, view: DocumentView) -> None:
        """Notify that a document was saved."""
        ...

    async def suggest(self, view: DocumentView) -> PolicyAnswer:
        """Return the suggestion at the cursor; cancelled when the document changes."""
        ...

    async def totals(self) -> ResourceUsage:
        """Return what was used so far."""
        ...


@dataclass(frozen=True)
class BenchModel:
    """The model and the number of threads, the same for all policies."""

    model_id: str
    model_path: Path
    threads: int
    """0: the engine chooses."""


class CpuMeter:
    """Measures the processor time of processes and their children, also of those that end in between.

    Time counts from the first sample on. ``roots`` returns the process ids.
    """

    def __init__(self, roots: Callable[[], Iterable[int]]) -> None:
        self._roots = roots
        self._first: dict[tuple[int, float], float] = {}
        self._last: dict[tuple[int, float], float] = {}
        self._begun = False

    def sample(self) -> None:
        """Read the processor time of all current processes."""
        for key, seconds in self._now():
            if key not in self._first:
                # All of the time counts for a process that started after the first sample.
                self._first[key] = 0.0 if self._begun else seconds
            self._last[key] = seconds
        self._begun = True

    @property
    def seconds(self) -> float:
        """User and system time between the first and the last sample."""
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
