"""One changed file given to one reader, watched: what escapes, how long it computes, and what it touches."""

from __future__ import annotations

import os
import signal
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from fuzz.targets import Target
from peft_core.errors import PeftDaemonError

PROCESSOR_LIMIT_S = 20.0
"""A hang, whatever else the machine does: it is time of the processor."""
STARTING = (
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "pickle.find_class"),
)
CHANGING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Watch:
    """Records what the interpreter is told to do while it is on; a hook of the interpreter cannot be taken away."""

    def __init__(self) -> None:
        self.on, self.seen = False, list[str]()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in STARTING:
            self.seen.append(f"{event} {arguments[:2]!r}")
        elif isinstance(arguments[0] if arguments else 0, int):
            return  # what is changed through a descriptor was opened before
        elif event in CHANGING or (event == "open" and (arguments[2] or 0) & WRITING):
            self.seen.append(os.path.realpath(os.fsdecode(arguments[0])))


WATCH = Watch()


class Fault(AssertionError):
    """A case that did what it must not."""


def restored(folder: Path, files: dict[Path, bytes]) -> None:
    """Make the folder what it was."""
    # Names are text as far as possible: with paths this took a third of the time of all cases.
    wanted = {str(path) for path in files} | {str(parent) for path in files for parent in path.parents}
    for top, below, names in os.walk(folder, topdown=False):
        for name in (*names, *below):
            if f"{top}/{name}" not in wanted:
                path = Path(top, name)
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    for path, content in files.items():
        if not _has(path, content):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o600)


def _has(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def run(target: Target, folder: Path, files: dict[Path, bytes], number: int) -> None:
    """Run the case of this number; raises Fault."""
    draw = Random(zlib.crc32(target.name.encode()) * 2**32 + number)
    name = draw.choice(sorted(target.changes))
    attempt(target, folder, files, name, target.changes[name](files[folder / name], draw), case=f"case {number}")


def attempt(
    target: Target, folder: Path, files: dict[Path, bytes], name: str, content: bytes, *, case: str = "a case"
) -> None:
    """Let the target read its folder, where one file has this content; raises Fault."""
    restored(folder, files)
    (folder / name).write_bytes(content)
    WATCH.seen.clear()
    try:
        with _limited():
            WATCH.on = True
            try:
                target.read(folder)
            finally:
                WATCH.on = False
    except PeftDaemonError as error:
        if not error.what:
            raise Fault(f"{target.name}, {case}: an error that says nothing") from error
    except BaseException as error:
        raise Fault(f"{target.name}, {case}, {name} = {content[:600]!r}: {error!r}"[:1500]) from error
    inside = os.path.realpath(folder)
    outside = [each for each in WATCH.seen if not (target.writes and f"{each}/".startswith(f"{inside}/"))]
    if outside:
        raise Fault(f"{target.name}, {case}: touched {outside[:3]}")


@contextmanager
def _limited() -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"computed for {PROCESSOR_LIMIT_S:.0f} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, PROCESSOR_LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
