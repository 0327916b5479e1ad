"""The simulated editor, the same for all systems under test: it sends and cancels requests, and shows suggestions.

It behaves like VS Code (inlineCompletionsSource.ts): it sends a request 50 ms after a keystroke, the next keystroke
cancels it, and an answer for a document that has changed since is dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from peft_evaluation.typing_benchmark.policies.base import DocumentView, PolicySession
from peft_evaluation.typing_benchmark.screen import NO_SUGGESTION, LineJudgement, Screen, ScreenSuggestion, judge
from peft_evaluation.typing_benchmark.traces import ENDS_SEGMENT, REQUESTING_ACTIONS, TraceAction, TraceEvent

DEBOUNCE_S = 0.05
"""VS Code's delay before a request for inline completions."""


# How long each keystroke waited for a suggestion. A state machine whose inputs are edits and the content of the screen.
#
# The clock of a keystroke stops when a suggestion that is valid for the current document is on the screen: at once if
# the ghost text from before remains valid, else with the next suggestion. If that comes after further keystrokes, all
# their clocks stop at that moment. If the segment ends first (the cursor moves elsewhere, or the trace ends), the
# keystroke never gets a suggestion.


class Keystroke(msgspec.Struct, kw_only=True):
    """One typed character after which a suggestion may be wanted, and the result; times in milliseconds."""

    index: int
    """Index of the event in its trace."""
    place: int
    """Number of the line being written; see ``TraceEvent.place``."""
    stayed: bool = False
    """Ghost text from before the keystroke remained valid."""
    shown_ms: float | None = None
    """Time until a valid suggestion was on the screen; null: never."""
    full_ms: float | None = None
    """Time until that suggestion had its full length (a partial answer may come first)."""
    answered_ms: float | None = None
    """Time until its own request was answered, even without a suggestion; null: it was cancelled, or never sent."""
    nothing: bool = False
    """Its own request was answered without a suggestion, and nothing was shown before the next event."""
    cached: bool | None = None
    """Its own request was answered without the model; null: not known."""
    text: str = ""
    """The suggestion on the screen at the next event."""
    judged: LineJudgement = NO_SUGGESTION
    """How good that suggestion was."""


@dataclass
class KeystrokeWatch:
    """Measures the keystrokes of a trace; ``now`` is a time in seconds of any clock."""

    keystrokes: list[Keystroke] = field(default_factory=list)
    _waiting: list[tuple[Keystroke, float]] = field(default_factory=list)
    _arrived: list[tuple[Keystroke, float]] = field(default_factory=list)
    """Keystrokes whose clock stopped since the last edit; their suggestion may still grow."""
    _shown: ScreenSuggestion | None = None

    def typed(self, now: float, keystroke: Keystroke, shown: ScreenSuggestion | None) -> None:
        """Record a keystroke; ``shown`` is the suggestion that is on the screen right after it."""
        self.keystrokes.append(keystroke)
        self._arrived.clear()
        self._waiting.append((keystroke, now))
        keystroke.stayed = shown is not None
        self._shown = None
        self.changed(now, shown)

    def edited(self, now: float, shown: ScreenSuggestion | None) -> None:
        """Record any other edit, which starts no clock."""
        self._arrived.clear()
        self._shown = None
        self.changed(now, shown)

    def changed(self, now: float, shown: ScreenSuggestion | None) -> None:
        """Record what the screen shows now."""
        if shown is None or shown == self._shown:
            self._shown = shown
            return
        for keystroke, began in self._waiting:
            keystroke.shown_ms = round(1000 * (now - began), 1)
        self._arrived += self._waiting
        self._waiting.clear()
        for keystroke, began in self._arrived:
            keystroke.full_ms = round(1000 * (now - began), 1)
        self._shown = shown

    def ended(self) -> None:
        """Record the end of a segment: keystrokes that still wait never get a suggestion."""
        self._waiting.clear()
        self._arrived.clear()
        self._shown = None


class Editor:
    """The open documents of one trace, the one that is shown, and the current request.

    ``save`` writes a document's text to the workspace; ``clock`` returns seconds.
    """

    def __init__(
        self, session: PolicySession, save: Callable[[str, str], None], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.session, self._save, self._clock = session, save, clock
        self.watch = KeystrokeWatch()
        self._screens: dict[str, Screen] = {}
        self._versions: dict[str, int] = {}
        self._current = ""
        self._asking: asyncio.Task[None] | None = None
        self._last: Keystroke | None = None
        self._truth = ""
        session.on_more = self._more

    @property
    def view(self) -> DocumentView:
        """The document that is shown now."""
        screen = self._screens[self._current]
        return DocumentView(self._current, screen.document, screen.cursor, self._versions[self._current])

    @property
    def waits(self) -> bool:
        """Whether the last keystroke has neither a suggestion on the screen nor an answer."""
        last = self._last
        return last is not None and last.shown_ms is None and last.answered_ms is None

    def happen(self, index: int, event: TraceEvent) -> None:
        """Carry out an event of the trace; does not wait for a suggestion."""
        if event.kind is TraceAction.PAUSE:
            return
        self._settle()
        self._cancel()
        if event.kind in ENDS_SEGMENT:
            self.watch.ended()
        if event.edit is not None:
            self._edit(index, event)
        elif event.kind is TraceAction.SWITCH:
            before = self.view
            self._screens[self._current] = self._screens[self._current].moved(self.view.cursor)
            self._current = event.file
            self.session.shown(self.view, before)
        elif event.kind is TraceAction.JUMP:
            self._screens[self._current] = self._screens[self._current].moved(event.cursor)
            self.session.moved(self.view)
        elif event.kind is TraceAction.SAVE:
            self._save(self._current, self.view.text)
            self.session.saved(self.view)
        if event.kind in REQUESTING_ACTIONS:
            self._asking = asyncio.create_task(self._ask(self._last, self._clock()))

    def open(self, name: str, text: str) -> None:
        """Show a document that is not open yet."""
        self._settle()
        self._cancel()
        self.watch.ended()
        self._current = name
        self._screens[name], self._versions[name] = Screen(text), 1
        self.session.opened(self.view)

    def close(self) -> None:
        """End: judge the last suggestion, and cancel the current request."""
        self._settle()
        self.watch.ended()
        self._cancel()

    def _edit(self, index: int, event: TraceEvent) -> None:
        edit, before, now = event.edit, self.view, self._clock()
        if edit is None:
            return
        screen = self._screens[self._current].edited(edit, event.cursor)
        self._screens[self._current] = screen
        self._versions[self._current] += 1
        if event.counts:
            self._last, self._truth = Keystroke(index=index, place=event.place), event.truth or ""
            self.watch.typed(now, self._last, screen.shown)
        else:
            self._last = None
            self.watch.edited(now, screen.shown)
        self.session.changed(self.view, edit, before)

    def _settle(self) -> None:
        """Record what the screen shows for the last keystroke, just before the next event."""
        last, self._last = self._last, None
        if last is None:
            return
        screen = self._screens[self._current]
        last.judged = judge(screen, self._truth)
        last.text = screen.shown.text if screen.shown else ""
        last.nothing = last.answered_ms is not None and last.judged == NO_SUGGESTION

    def _cancel(self) -> None:
        task, self._asking = self._asking, None
        if task is None:
            return
        if task.done() and not task.cancelled():
            task.result()  # raises the exception of the request, if there was one
        task.cancel()

    async def _ask(self, keystroke: Keystroke | None, began: float) -> None:
        await asyncio.sleep(DEBOUNCE_S)
        view = self.view
        answer = await self.session.suggest(view)
        if self.view != view:
            return
        now = self._clock()
        self._show(self._screens[view.file].offered(answer.ghost), now)
        if keystroke is not None:
            keystroke.answered_ms = round(1000 * (now - began), 1)
            keystroke.cached = answer.cached

    def _more(self) -> None:
        """Request again at once: more of the last answer is available."""
        if self._asking is None or self._asking.done():
            self._cancel()
            self._asking = asyncio.create_task(self._ask_again())

    async def _ask_again(self) -> None:
        view = self.view
        answer = await self.session.suggest(view)
        if self.view == view:
            self._show(self._screens[view.file].grown(answer.ghost), self._clock())

    def _show(self, screen: Screen, now: float) -> None:
        self._screens[self._current] = screen
        self.watch.changed(now, screen.shown)
