"""One trace against one system, in real time: what came of every keystroke, and what it took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from peft_evaluation.typing.editor import Editor
from peft_evaluation.typing.policies.base import Session, Totals
from peft_evaluation.typing.traces import Kind, Trace
from peft_evaluation.typing.watching import Keystroke
from peft_evaluation.typing.workspace import Workspace

POLL_S = 0.02
MORE_S = 1.0
Opened = Callable[[Workspace], Session]
Tell = Callable[[str, float], None]
"""Called with what happens and the seconds of the trace that are over."""


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What one system made of one trace; a line of the journal."""

    policy: str
    trace: str
    typed: int
    """Characters typed by hand."""
    seconds: float
    keystrokes: tuple[Keystroke, ...]
    totals: Totals


async def replay(trace: Trace, policy: str, opened: Opened, tell: Tell) -> Replayed:
    """Start the system, replay the trace, end the system.

    Raises what the system raises when it cannot be started or asked.
    """
    with Workspace(trace) as workspace:
        session = opened(workspace)
        keystrokes: list[Keystroke] = []
        spent = Totals()
        began = time.perf_counter()
        try:
            await session.start()
            editor = Editor(session, workspace.write)
            began = due = time.perf_counter()
            for index, event in enumerate(trace.events):
                due += event.wait_s
                tell(f"{policy}: {trace.id}", due - began)
                if event.until_shown and await _shown(editor, due):
                    due = time.perf_counter()
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                if event.kind is Kind.RESTART:
                    editor.close()
                    keystrokes += editor.watch.keystrokes
                    spent = added(spent, await session.totals())
                    await session.stop()
                    session = opened(workspace)
                    await session.start()
                    editor, due = Editor(session, workspace.write), time.perf_counter()
                elif event.kind is Kind.OPEN:
                    editor.open(event.file, workspace.read(event.file))
                else:
                    editor.happen(index, event)
            editor.close()
            keystrokes += editor.watch.keystrokes
            spent = added(spent, await session.totals())
        finally:
            with suppress(ProcessLookupError):
                await session.stop()
    return Replayed(
        policy=policy,
        trace=trace.id,
        typed=trace.typed,
        seconds=round(time.perf_counter() - began, 1),
        keystrokes=tuple(keystrokes),
        totals=spent,
    )


async def _shown(editor: Editor, due: float) -> bool:
    """Whether what was typed last has its answer before ``due``; returns a little later, as more of it may come."""
    while editor.waits:
        if time.perf_counter() >= due:
            return False
        await asyncio.sleep(POLL_S)
    await asyncio.sleep(MORE_S)
    return True


def added(one: Totals, other: Totals) -> Totals:
    """Two spells of work together; what only one of them tells of is not known."""

    def both(a: int | None, b: int | None) -> int | None:
        return None if a is None or b is None else a + b

    if one == Totals():
        return other
    return Totals(
        requests=one.requests + other.requests,
        prompt_evaluated=both(one.prompt_evaluated, other.prompt_evaluated),
        prompt_reused=both(one.prompt_reused, other.prompt_reused),
        decoded=both(one.decoded, other.decoded),
        cpu_s=round(one.cpu_s + other.cpu_s, 2),
        kept=both(one.kept, other.kept),
        joined=both(one.joined, other.joined),
    )
