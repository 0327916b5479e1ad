"""The types of traces: timed events of a person who edits a few files.

Offsets are in characters of the file's current text. A file starts as its *original* with some parts missing, and is
equal to the original at the end of the trace. So the text that comes next is known at (nearly) every moment.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

import msgspec

AHEAD = 400
"""Number of characters of the following text that an event has."""


class TraceAction(StrEnum):
    """What the person does."""

    OPEN = "open"
    """Open and show a file, with the cursor at its start."""
    SWITCH = "switch"
    """Show another open file again."""
    JUMP = "jump"
    """Move the cursor to another place in the file."""
    KEY = "key"
    """Type a character; the editor may add a closing bracket, or the indentation of a new line."""
    DELETE = "delete"
    """Press Backspace, which deletes one character, or one level of indentation."""
    UNDO = "undo"
    """Remove the last word, in one edit."""
    ACCEPT = "accept"
    """Insert the rest of the line in one edit, as if a correct suggestion were accepted."""
    SAVE = "save"
    PAUSE = "pause"
    """Do nothing; the last keystroke may still get a suggestion."""
    RESTART = "restart"
    """End and restart the editor, the service and its engine; files are as they were last saved."""


REQUESTING_ACTIONS = frozenset({TraceAction.KEY, TraceAction.DELETE, TraceAction.ACCEPT})
"""Actions after which the editor requests a suggestion by itself (in VS Code: typing, Backspace, accepting)."""
ENDS_SEGMENT = frozenset(
    {TraceAction.OPEN, TraceAction.SWITCH, TraceAction.JUMP, TraceAction.UNDO, TraceAction.RESTART}
)
"""Actions after which a suggestion for an earlier keystroke is no longer wanted."""


class TraceEdit(msgspec.Struct, frozen=True):
    """Replaces the characters from ``start`` to ``end`` by ``text``."""

    start: int
    end: int
    text: str

    def applied(self, text: str) -> str:
        """Return ``text`` after the edit."""
        return text[: self.start] + self.text + text[self.end :]


class TraceEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One action of the person."""

    kind: TraceAction
    wait_s: float
    """Seconds since the event before it."""
    file: str
    """Name of the file it happens in."""
    edit: TraceEdit | None = None
    cursor: int = 0
    """Offset of the cursor afterwards."""
    truth: str | None = None
    """The original's text after the cursor, up to ``AHEAD`` characters; null while there is a mistake in the text."""
    place: int = 0
    """Number of the line being written, in the order of writing; the keystrokes of a line have the same number."""
    until_shown: bool = False
    """For a pause: end it early, soon after the last keystroke has a suggestion or an answer."""

    @property
    def counts(self) -> bool:
        """Whether the event is measured: a correct character was typed that does not end its line."""
        if self.kind is not TraceAction.KEY or self.truth is None:
            return False
        return bool(self.truth.partition("\n")[0].strip())


class TraceFile(msgspec.Struct, frozen=True):
    """One file of a trace."""

    name: str
    """Path in its code base, with ``/``."""
    before: str
    """Its text at the start of the trace."""
    original: str


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """A sequence of events in a few files of one code base."""

    id: str
    code_base: str
    """Name and version of the package, or the folder's name."""
    root: str
    """Folder of the code base; the files around the edited ones are copied from there."""
    files: tuple[TraceFile, ...]
    events: tuple[TraceEvent, ...]
    covers: tuple[str, ...]
    """The kinds of editing in it."""

    @property
    def seconds(self) -> float:
        """The duration of its replay."""
        return sum(event.wait_s for event in self.events)

    @property
    def typed(self) -> int:
        """Number of characters typed by hand."""
        return sum(event.kind is TraceAction.KEY for event in self.events)

    def texts(self) -> dict[str, str]:
        """Return the files' texts at the end, by name."""
        texts = {file.name: file.before for file in self.files}
        for event in self.events:
            if event.edit is not None:
                texts[event.file] = event.edit.applied(texts[event.file])
        return texts


def digest_of(traces: tuple[Trace, ...]) -> str:
    """Return the sha256 of traces; it does not depend on the folders of the code bases."""
    parts = [msgspec.structs.replace(trace, root="") for trace in traces]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
