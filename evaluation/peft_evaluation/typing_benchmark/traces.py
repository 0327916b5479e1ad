"""What is replayed: timed events of a person who edits a few files. Values only.

Offsets count characters of a file's text as it is just then. Every file begins as its *original* with some parts left
out, and has grown back into it when the trace ends; so at (nearly) every moment it is known what comes next.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

import msgspec

AHEAD = 400
"""Characters of what comes next that an event carries."""


class TraceAction(StrEnum):
    """What the person does."""

    OPEN = "open"
    """A file is opened and shown, its cursor at the top."""
    SWITCH = "switch"
    """Another open file is shown again."""
    JUMP = "jump"
    """The cursor is set elsewhere in the file."""
    KEY = "key"
    """A character is typed; the editor may add the closing bracket, or the indentation of a new line."""
    DELETE = "delete"
    """Backspace: one character, or one step of indentation."""
    UNDO = "undo"
    """The last word goes, in one edit."""
    ACCEPT = "accept"
    """The rest of the line is inserted in one edit, as when a right suggestion is accepted."""
    SAVE = "save"
    PAUSE = "pause"
    """Nothing but time; what was typed goes on waiting for a suggestion."""
    RESTART = "restart"
    """The editor, the service and its engine end and start again; files are as they were last saved."""


REQUESTING_ACTIONS = frozenset({TraceAction.KEY, TraceAction.DELETE, TraceAction.ACCEPT})
"""After these an editor asks for a suggestion by itself (VS Code: typing, backspace, and accepting)."""
ENDS_SEGMENT = frozenset(
    {TraceAction.OPEN, TraceAction.SWITCH, TraceAction.JUMP, TraceAction.UNDO, TraceAction.RESTART}
)
"""After these nobody waits any more for a suggestion to what was typed before."""


class TraceEdit(msgspec.Struct, frozen=True):
    """``text`` instead of what stands from ``start`` to ``end``."""

    start: int
    end: int
    text: str

    def applied(self, text: str) -> str:
        """``text`` after the edit."""
        return text[: self.start] + self.text + text[self.end :]


class TraceEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One thing the person does."""

    kind: TraceAction
    wait_s: float
    """Seconds since the event before it."""
    file: str
    """Name of the file it happens in."""
    edit: TraceEdit | None = None
    cursor: int = 0
    """Where the cursor stands afterwards."""
    truth: str | None = None
    """What the original has from the cursor on, to ``AHEAD``; null while something wrong stands there."""
    place: int = 0
    """Number of the line being written, in the order of writing; keystrokes of one line belong together."""
    until_shown: bool = False
    """Of a pause: it is over soon after what was typed last has its suggestion or its answer."""

    @property
    def counts(self) -> bool:
        """Whether the person may want a suggestion: a character was typed rightly, and its line goes on."""
        if self.kind is not TraceAction.KEY or self.truth is None:
            return False
        return bool(self.truth.partition("\n")[0].strip())


class TraceFile(msgspec.Struct, frozen=True):
    """One file of a trace."""

    name: str
    """Path in its code base, with ``/``."""
    before: str
    """Its text when the trace begins."""
    original: str


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """One recording."""

    id: str
    code_base: str
    """Name and version of the package, or the folder's name."""
    root: str
    """Folder of the code base; the other files around those that are edited are copied from there."""
    files: tuple[TraceFile, ...]
    events: tuple[TraceEvent, ...]
    covers: tuple[str, ...]
    """Which kinds of editing are in it."""

    @property
    def seconds(self) -> float:
        """How long its replay takes."""
        return sum(event.wait_s for event in self.events)

    @property
    def typed(self) -> int:
        """Characters typed by hand."""
        return sum(event.kind is TraceAction.KEY for event in self.events)

    def texts(self) -> dict[str, str]:
        """The files' texts at the end, by name: every edit applied."""
        texts = {file.name: file.before for file in self.files}
        for event in self.events:
            if event.edit is not None:
                texts[event.file] = event.edit.applied(texts[event.file])
        return texts


def digest_of(traces: tuple[Trace, ...]) -> str:
    """Identifies traces by all that is replayed, wherever the code bases lie."""
    parts = [msgspec.structs.replace(trace, root="") for trace in traces]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
