"""``peft-daemon/status``: one word for the editor's status bar, and a progress bar while the model loads.

The client is told when something it can show has changed, and only then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum

import msgspec
from pygls.progress import Progress

from peft_core.api_types import CompleteResponse
from peft_lsp.progress import create_progress_token, open_progress_bar

log = logging.getLogger(__name__)


class ServerState(StrEnum):
    """What a status bar shows."""

    OFF = "off"
    """Switched off in the editor's settings."""
    LOADING = "loading"
    """The daemon or its model is starting: completions are empty until it is ready."""
    IDLE = "idle"
    THINKING = "thinking"
    """A request is with the model."""
    ERROR = "error"
    """``message`` says what is wrong and what to do."""


class DocumentOff(msgspec.Struct, frozen=True):
    """An open document without suggestions, and why it has none."""

    uri: str
    why: str


class Status(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Parameters of the notification."""

    state: ServerState
    model: str = ""
    adapter: str = ""
    """Adapter of the last answer; empty: none."""
    latency_ms: int | None = None
    """Time the last answer took, seen from here."""
    message: str = ""
    off: tuple[DocumentOff, ...] = ()
    """Open documents in which suggestions are off, by their kind or by a setting."""


class StatusBoard:
    """Puts together what the settings, the daemon and the running requests say, and reports each change once."""

    def __init__(self, report: Callable[[Status], None]) -> None:
        self._report = report
        self._enabled = True
        self._daemon = ServerState.LOADING
        self._active = 0
        self._shown: Status | None = None
        self._facts = Status(state=ServerState.LOADING)

    @property
    def status(self) -> Status:
        """The status now."""
        state = ServerState.OFF if not self._enabled else self._daemon
        if state is ServerState.IDLE and self._active:
            state = ServerState.THINKING
        return msgspec.structs.replace(self._facts, state=state)

    def enable(self, enabled: bool) -> None:
        """The settings switched completion on or off."""
        self._enabled = enabled
        self._update()

    def daemon(self, state: ServerState, *, model: str | None = None, message: str = "") -> None:
        """The daemon is LOADING, IDLE (ready) or in ERROR."""
        self._daemon = state
        self._update(model=self._facts.model if model is None else model, message=message)

    def documents(self, off: Iterable[DocumentOff]) -> None:
        """Suggestions are off in these open documents."""
        self._update(off=tuple(off))

    @contextmanager
    def thinking(self) -> Iterator[None]:
        """A request is with the model while this is open."""
        self._active += 1
        self._update()
        try:
            yield
        finally:
            self._active -= 1
            self._update()

    def answered(self, response: CompleteResponse, latency_ms: float) -> None:
        """The model answered."""
        self._daemon = ServerState.IDLE
        adapter = response.adapter.name if response.adapter else ""
        self._update(model=response.model, adapter=adapter, latency_ms=round(latency_ms), message="")

    def _update(self, **facts: object) -> None:
        self._facts = msgspec.structs.replace(self._facts, **facts)
        if self.status != self._shown:
            self._shown = self.status
            self._report(self.status)


class LoadingProgress:
    """Shows the client's own progress bar for as long as the status is LOADING."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._loaded: asyncio.Event | None = None
        self._tasks = BackgroundTasks(log, "the progress of loading could not be shown")

    def follow(self, status: Status) -> None:
        """Begin or end with the status; call it for each change."""
        if status.state is ServerState.LOADING:
            if self._loaded is None:
                self._loaded = asyncio.Event()
                self._tasks.spawn(self._show(status.model, self._loaded))
        elif self._loaded is not None:
            self._loaded.set()
            self._loaded = None

    async def _show(self, model: str, loaded: asyncio.Event) -> None:
        token = await create_progress_token(self._progress)
        title = f"Loading {model}" if model else "Starting peft-daemon"
        async with open_progress_bar(self._progress, token, title, cancellable=False):
            await loaded.wait()
