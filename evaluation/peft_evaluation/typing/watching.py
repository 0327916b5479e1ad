"""When each keystroke got its suggestion: a state machine fed with edits and with what the screen shows. Pure.

The clock starts with a keystroke. It stops when a suggestion that is valid for the document *as it is then* is on the
screen: at once, where ghost text stays through the keystroke; else with the next that appears, be it after further
keystrokes, whose own clocks stop at the same moment. When the segment ends (the cursor goes elsewhere, the trace is
over) before anything appears, the clock never stops.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from peft_evaluation.typing.quality import SILENT, Judged
from peft_evaluation.typing.screen import Shown


class Keystroke(msgspec.Struct, kw_only=True):
    """One typed character after which a suggestion may be wanted, and what came of it; times in milliseconds."""

    index: int
    """Of the event in its trace."""
    place: int
    stayed: bool = False
    """Ghost text that was there before agrees with the character."""
    shown_ms: float | None = None
    """Until something valid was on the screen; null: never."""
    full_ms: float | None = None
    """Until that had its full length (a partial answer may come first)."""
    answered_ms: float | None = None
    """Until its own request was answered, be it with nothing; null: it was overtaken, or never made."""
    nothing: bool = False
    """Its own request was answered with nothing, and nothing was shown before the next event."""
    cached: bool | None = None
    """Its own request was answered without the model; null where that is not known."""
    text: str = ""
    """What was on the screen at the next event ..."""
    judged: Judged = SILENT
    """... and how good that was."""


@dataclass
class Watch:
    """Follows one document after the other; ``now`` is in seconds, from any beginning."""

    keystrokes: list[Keystroke] = field(default_factory=list)
    _waiting: list[tuple[Keystroke, float]] = field(default_factory=list)
    _arrived: list[tuple[Keystroke, float]] = field(default_factory=list)
    """Those whose clock stopped since the last edit: what is shown to them may still grow."""
    _shown: Shown | None = None

    def typed(self, now: float, keystroke: Keystroke, shown: Shown | None) -> None:
        """A keystroke; ``shown`` is what is still on the screen right after it."""
        self.keystrokes.append(keystroke)
        self._arrived.clear()
        self._waiting.append((keystroke, now))
        keystroke.stayed = shown is not None
        self._shown = None
        self.changed(now, shown)

    def edited(self, now: float, shown: Shown | None) -> None:
        """Any other edit: no clock starts."""
        self._arrived.clear()
        self._shown = None
        self.changed(now, shown)

    def changed(self, now: float, shown: Shown | None) -> None:
        """What the screen shows may be other than before."""
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
        """The segment is over: who still waits does so for ever."""
        self._waiting.clear()
        self._arrived.clear()
        self._shown = None
