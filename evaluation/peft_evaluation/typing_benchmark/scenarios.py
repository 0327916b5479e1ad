"""Two fixed scenes: a file opened with everything cold, and the same file reopened after all was restarted.

What is measured is one keystroke each: how long until the first suggestion. Afterwards nobody types for ``WAIT_S``.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from peft_evaluation.typing_benchmark.keystrokes import KeystrokeWriter, TypingManner
from peft_evaluation.typing_benchmark.trace_maker import CodeBase, TypedPart, stretches, without
from peft_evaluation.typing_benchmark.traces import Trace, TraceAction, TraceEdit, TraceEvent, TraceFile

LINES = (250, 360)
"""Of the file."""
LOOK_S = (0.0, 2.0)
"""How long the person looks at the file before the first keystroke."""
WAIT_S = 40.0
"""Longest wait for a suggestion."""
GAP_S = 0.25
"""Between setting the cursor and the keystroke."""
BEGUN = 4
"""Characters that stand in the line before the keystroke that is measured."""
_STEADY = TypingManner(mistake=0, retype=0, undo=0, accept=0, think=0)


@dataclass(frozen=True)
class Scene:
    """A file and the one line in its middle that is written."""

    base: CodeBase
    name: str
    original: str
    part: TypedPart


def cold(scene: Scene, look_s: float) -> Trace:
    """The file is opened, looked at, and a character typed in its middle."""
    before, key = _written(scene)
    opened = TraceEvent(kind=TraceAction.OPEN, wait_s=0.5, file=scene.name)
    events = (opened, _jump(scene, look_s, key), key, _wait(scene))
    return _trace(scene, f"cold-{look_s:.0f}s", before, events)


def reopened(scene: Scene, look_s: float) -> Trace:
    """The file was worked on and saved; all is restarted; it is opened, looked at, and worked on at the same place."""
    before, key = _written(scene)
    earlier = key.edit.start if key.edit else 0
    last = before[earlier - 1 : earlier]
    shorter = before[: earlier - 1] + before[earlier:]
    # The character before was typed in the session before, which ends only when it has been answered.
    typed = TraceEvent(
        kind=TraceAction.KEY,
        wait_s=GAP_S,
        file=scene.name,
        edit=TraceEdit(earlier - 1, earlier - 1, last),
        cursor=earlier,
        truth=(key.edit.text if key.edit else "") + (key.truth or ""),
    )
    opened = TraceEvent(kind=TraceAction.OPEN, wait_s=0.5, file=scene.name)
    events = (
        opened,
        _jump(scene, 1.0, typed),
        typed,
        _wait(scene),
        TraceEvent(kind=TraceAction.SAVE, wait_s=0.1, file=scene.name, cursor=earlier),
        TraceEvent(kind=TraceAction.PAUSE, wait_s=2.0, file=scene.name),
        TraceEvent(kind=TraceAction.RESTART, wait_s=0.0, file=scene.name),
        opened,
        _jump(scene, look_s, key),
        key,
        _wait(scene),
    )
    return _trace(scene, f"reopened-{look_s:.0f}s", shorter, events)


def scene_of(base: CodeBase) -> Scene | None:
    """The first file of fitting length, and a line near its middle; None where none fits."""
    for name in base.files:
        original = base.read(name)
        if not LINES[0] <= original.count("\n") <= LINES[1]:
            continue
        if lines := stretches(original, shortest=24, longest=90):
            middle = len(original) / 2
            return Scene(base, name, original, min(lines, key=lambda part: abs(part.start - middle)))
    return None


def _written(scene: Scene) -> tuple[str, TraceEvent]:
    """The file with the line begun, and the event that types the next character of it."""
    before = without(scene.original, [scene.part])
    writer = KeystrokeWriter(scene.name, scene.original, before, Random(0), _STEADY)  # noqa: S311  (nothing is drawn that counts)
    begun = 0
    for event in writer.write(scene.part.start, scene.part.end, scene.part.start):
        if event.counts:
            begun += 1
        if begun > BEGUN:
            return before, event
        if event.edit is not None:
            before = event.edit.applied(before)
    raise ValueError(f"{scene.name} has no line to write")


def _jump(scene: Scene, look_s: float, key: TraceEvent) -> TraceEvent:
    cursor = key.edit.start if key.edit else 0
    return TraceEvent(kind=TraceAction.JUMP, wait_s=look_s, file=scene.name, cursor=cursor)


def _wait(scene: Scene) -> TraceEvent:
    return TraceEvent(kind=TraceAction.PAUSE, wait_s=WAIT_S, file=scene.name, until_shown=True)


def _trace(scene: Scene, kind: str, before: str, events: tuple[TraceEvent, ...]) -> Trace:
    return Trace(
        id=f"{kind}-{scene.name.rsplit('/', 1)[-1].removesuffix('.py')}",
        code_base=scene.base.name,
        root=str(scene.base.root),
        files=(TraceFile(scene.name, before, scene.original),),
        events=events,
        covers=(kind.partition("-")[0],),
    )
