"""What a system under test is to the replay: something that is told of edits and asked for suggestions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from peft_evaluation.typing.screen import Ghost
from peft_evaluation.typing.traces import Edit


@dataclass(frozen=True)
class View:
    """A document as the editor has it."""

    file: str
    """Its name in the workspace."""
    text: str
    cursor: int
    version: int


@dataclass(frozen=True)
class Answer:
    """What a request came to."""

    ghost: Ghost | None
    cached: bool | None = None
    """Whether the model was not asked; None where that cannot be known."""


class Totals(msgspec.Struct, frozen=True, kw_only=True):
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


class Session(Protocol):
    """One system at work on one workspace, from ``start`` to ``stop``."""

    on_more: Callable[[], None] | None
    """Called when more of the last answer has come: the editor asks again."""

    async def start(self) -> None:
        """Start all its processes; returns when the model is loaded."""
        ...

    async def stop(self) -> None:
        """End them; safe to call whatever happened."""
        ...

    def opened(self, view: View) -> None:
        """A document is shown for the first time."""
        ...

    def shown(self, view: View, before: View) -> None:
        """Another open document is shown again, instead of ``before``."""
        ...

    def changed(self, view: View, edit: Edit, before: View) -> None:
        """A document was edited."""
        ...

    def moved(self, view: View) -> None:
        """The cursor was set elsewhere without an edit."""
        ...

    def saved(self, view: View) -> None:
        """A document was written to the disk."""
        ...

    async def suggest(self, view: View) -> Answer:
        """The suggestion at the cursor; cancelled when the document changes."""
        ...

    async def totals(self) -> Totals:
        """What was spent so far."""
        ...


@dataclass(frozen=True)
class Engine:
    """The model and the processor's share all policies get."""

    model_id: str
    model_path: Path
    threads: int
    """0: as many as the engine takes by itself."""
