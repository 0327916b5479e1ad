"""Two fixed scenes: a file opened right after the start, and the same file reopened after a restart of everything.

In each, one keystroke is measured: the time until the first suggestion, which is awaited for up to ``WAIT_S``.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from peft_evaluation.typing_benchmark.keystrokes import KeystrokeWriter, TypingManner
from peft_evaluation.typing_benchmark.trace_maker import CodeBase, TypedPart, line_blocks, remove_parts
from peft_evaluation.typing_benchmark.traces import Trace, TraceAction, TraceEdit, TraceEvent, TraceFile

LINES = (250, 360)
"""Smallest and greatest number of lines of the file."""
LOOK_S = (0.0, 2.0)
"""Times for which the person looks at the file before the first keystroke."""
WAIT_S = 40.0
"""Longest wait for a suggestion."""
GAP_S = 0.25
"""Time between setting the cursor and the keystroke."""
TYPED_BEFORE = 4
"""Characters of the line that are already there before the measured keystroke."""
_STEADY = TypingManner(mistake=0, retype=0, undo=0, accept=0, think=0)


@dataclass(frozen=True)
class Scene:
    """A file, and the line in its middle that is typed."""

    base: CodeBase
    name: str
    original: str
    part: TypedPart


def cold(scene: Scene, look_s: float) -> Trace:
    """Return the trace: open the file, look at it for ``look_s``, and type a character in its middle."""
    before, key = _written(scene)
    opened = TraceEvent(kind=TraceAction.OPEN, wait_s=0.5, file=scene.name)
    events = (opened, _jump(scene, look_s, key), key, _wait(scene))
    return _trace(scene, f"cold-{look_s:.0f}s", before, events)


def reopened(scene: Scene, look_s: float) -> Trace:
    """Return the trace: edit and save the file, restart everything, open it again, and type at the same place."""
    before, key = _written(scene)
    earlier = key.edit.start if key.edit else 0
    last = before[earlier - 1 : earlier]
    shorter = before[: earlier - 1] + before[earlier:]
    # The character before is typed in the first session, which ends after its answer.
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
    """Return the scene of the first file with a suitable length and a line near its middle; None if there is none."""
    for name in base.files:
        original = base.read(name)
        if not LINES[0] <= original.count("\n") <= LINES[1]:
            continue
        if lines := line_blocks(original, shortest=24, longest=90):
            middle = len(original) / 2
            return Scene(base, name, original, min(lines, key=lambda part: abs(part.start - middle)))
    return None


def _written(scene: Scene) -> tuple[str, TraceEvent]:
    """Return the file's text with the beginning of the line, and the event that types the next character."""
    before = remove_parts(scene.original, [scene.part])
    writer = KeystrokeWriter(scene.name, scene.original, before, Random(0), _STEADY)  # noqa: S311  (nothing is drawn that counts)
    begun = 0
    for event in writer.write(scene.part.start, scene.part.end, scene.part.start):
        if event.counts:
            begun += 1
        if begun > TYPED_BEFORE:
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
