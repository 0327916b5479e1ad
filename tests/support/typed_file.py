"""A short file and the traces that write a line of it, for tests of the typing benchmark."""

from __future__ import annotations

from pathlib import Path
from random import Random

import msgspec

from peft_evaluation.typing_benchmark.keystrokes import KeystrokeWriter, TypingManner
from peft_evaluation.typing_benchmark.trace_maker import line_blocks, remove_parts
from peft_evaluation.typing_benchmark.traces import Trace, TraceAction, TraceEvent, TraceFile

TEXT = '''"""Sums."""


def add(first, second):
    return first + second


def subtract(first, second):
    return first - second
'''
PATIENT = 60.0
"""Seconds a suggestion may take on a machine that does other things as well."""


def short_trace(folder: Path, *, keys: int, wait_s: float = 0.05) -> Trace:
    """Enter and the last function's first ``keys - 1`` characters are typed; the last is waited for."""
    (folder / "sums.py").write_text(TEXT)
    part = line_blocks(TEXT, shortest=1, longest=100)[-1]
    before = remove_parts(TEXT, [part])
    writer = KeystrokeWriter("sums.py", TEXT, before, Random(0), TypingManner(0, 0, 0, 0, 0))
    events = [TraceEvent(kind=TraceAction.OPEN, wait_s=0.0, file="sums.py")]
    for event in writer.write(part.start, part.end, part.start):
        events.append(msgspec.structs.replace(event, wait_s=wait_s))
        if sum(each.kind is TraceAction.KEY for each in events) == keys:
            break
    events.append(TraceEvent(kind=TraceAction.PAUSE, wait_s=PATIENT, file="sums.py", until_shown=True))
    return Trace(
        id="short",
        code_base="sums",
        root=str(folder),
        files=(TraceFile("sums.py", before, TEXT),),
        events=tuple(events),
        covers=("cold open",),
    )
