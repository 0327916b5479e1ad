"""Replay one trace against one system in real time, and record the result of every keystroke and the resources used."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import msgspec

from peft_evaluation.typing_benchmark.editor import Editor, Keystroke
from peft_evaluation.typing_benchmark.policies.base import PolicySession, ResourceUsage
from peft_evaluation.typing_benchmark.traces import Trace, TraceAction

MAX_FILES = 1000
"""Files of a code base that are copied at most."""
MAX_FILE_BYTES = 1_000_000
"""Larger files are not copied."""
POLL_S = 0.02
MORE_S = 1.0
"""Wait after the first suggestion of a scene, as the suggestion may still grow."""


class TraceWorkspace:
    """A temporary folder with the files of a trace and around it; use it in a ``with`` block."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        # A short prefix, as the path of a unix socket below it may have only 103 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="pdb-"))
        """Folder for the system's own files; it contains ``folder``."""
        self.folder = self.home / "work"
        """Folder with the code."""

    def __enter__(self) -> TraceWorkspace:
        for name in self._around():
            self._copy(name)
        for file in self._trace.files:
            self.write(file.name, file.before)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.home, ignore_errors=True)

    def path(self, name: str) -> Path:
        """Return the path of a file of the trace."""
        return self.folder / name

    def read(self, name: str) -> str:
        """Return the text of a file as it was last saved."""
        return self.path(name).read_text(encoding="utf-8")

    def write(self, name: str, text: str) -> None:
        """Save a file."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _around(self) -> list[str]:
        """Return the Python files below the top-level folders of the trace's files."""
        root = Path(self._trace.root)
        tops = {file.name.split("/")[0] for file in self._trace.files}
        found: list[str] = []
        for top in sorted(tops):
            folder = root / top
            files = sorted(folder.rglob("*.py")) if folder.is_dir() else []
            found += [file.relative_to(root).as_posix() for file in files]
        return found[:MAX_FILES]

    def _copy(self, name: str) -> None:
        source, target = Path(self._trace.root) / name, self.path(name)
        if source.is_file() and not source.is_symlink() and source.stat().st_size <= MAX_FILE_BYTES:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


OpenSession = Callable[[TraceWorkspace], PolicySession]


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one system on one trace; a line of the journal."""

    policy: str
    trace: str
    typed: int
    """Characters typed by hand."""
    seconds: float
    keystrokes: tuple[Keystroke, ...]
    totals: ResourceUsage


async def replay(trace: Trace, policy: str, opened: OpenSession, on_progress: Callable[[str, float], None]) -> Replayed:
    """Start the system, replay the trace, and end the system; raises what the system raises.

    ``on_progress`` receives a description and the seconds of the trace that have passed.
    """
    with TraceWorkspace(trace) as workspace:
        session = opened(workspace)
        keystrokes: list[Keystroke] = []
        spent = ResourceUsage()
        began = time.perf_counter()
        try:
            await session.start()
            editor = Editor(session, workspace.write)
            began = due = time.perf_counter()
            for index, event in enumerate(trace.events):
                due += event.wait_s
                on_progress(f"{policy}: {trace.id}", due - began)
                if event.until_shown and await _shown(editor, due):
                    due = time.perf_counter()
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                if event.kind is TraceAction.RESTART:
                    editor.close()
                    keystrokes += editor.watch.keystrokes
                    spent = added(spent, await session.totals())
                    await session.stop()
                    session = opened(workspace)
                    await session.start()
                    editor, due = Editor(session, workspace.write), time.perf_counter()
                elif event.kind is TraceAction.OPEN:
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
    """Wait until the last keystroke has a suggestion or an answer, and ``MORE_S``; return False if ``due`` is first."""
    while editor.waits:
        if time.perf_counter() >= due:
            return False
        await asyncio.sleep(POLL_S)
    await asyncio.sleep(MORE_S)
    return True


def added(one: ResourceUsage, other: ResourceUsage) -> ResourceUsage:
    """Return the sum of what two sessions used; a number that one of them does not know is None."""

    def both(a: int | None, b: int | None) -> int | None:
        return None if a is None or b is None else a + b

    if one == ResourceUsage():
        return other
    return ResourceUsage(
        requests=one.requests + other.requests,
        prompt_evaluated=both(one.prompt_evaluated, other.prompt_evaluated),
        prompt_reused=both(one.prompt_reused, other.prompt_reused),
        decoded=both(one.decoded, other.decoded),
        cpu_s=round(one.cpu_s + other.cpu_s, 2),
        kept=both(one.kept, other.kept),
        joined=both(one.joined, other.joined),
    )
