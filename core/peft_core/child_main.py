"""The child's side of ``child_process``: read lines from stdin, answer on stdout, end with the parent.

A parent that is killed cannot end its children, so each child ends itself, whatever its threads do. On Linux the
kernel kills it. On every system a thread waits for the end of stdin and then ends the process. Native code is never
unwound, neither then nor after an error: llama.cpp's destructor waits for threads that may never end.

Imports neither asyncio nor psutil: they would delay the start of every engine.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import BinaryIO, NoReturn

from peft_core.confinement import forbid_core_dumps

PARENT_VARIABLE = "PEFT_DAEMON_PARENT_PID"
"""Environment variable with the parent's process id, to notice a parent that ended before the child asked."""
PR_SET_PDEATHSIG = 1
"""Option of Linux's prctl(2)."""


class CommandReader:
    """The lines of a stream, read by a thread of its own, which calls ``on_end`` after the last one.

    ``first`` is a line that was read before.
    """

    def __init__(self, stream: BinaryIO, on_end: Callable[[], object], first: bytes = b"") -> None:
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        if first:
            self._lines.put(first)
        threading.Thread(target=self._read, args=(stream, on_end), name="commands", daemon=True).start()

    def next(self) -> bytes:
        """Wait for the next line and return it."""
        return self._lines.get()

    def waiting(self) -> bytes | None:
        """Return the next line if it has arrived, else None."""
        try:
            return self._lines.get_nowait()
        except queue.Empty:
            return None

    def _read(self, stream: BinaryIO, on_end: Callable[[], object]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := stream.readline():
                self._lines.put(line)
        on_end()


def run_child(
    serve: Callable[[CommandReader, BinaryIO], NoReturn],
    at_end: Callable[[], None] = lambda: None,
    confine: Callable[[bytes], None] | None = None,
) -> NoReturn:
    """Call ``serve`` with the lines of stdin and a stream for answers; end this process with it or with the parent.

    ``at_end`` is called right before, to end what this process has started. ``confine`` is called with the first line
    before there is a second thread, as only then no thread keeps what is given up; ``serve`` gets that line as well.

    Text that libraries print goes to stderr, so that stdout holds answers only.
    """
    forbid_core_dumps()
    end_with_parent()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        first = b""
        if confine is not None:
            first = sys.stdin.buffer.readline()
            if not first:
                _end(0, at_end)
            confine(first)
        # No orderly end is needed: the parent has ordered earlier to save what is to be kept.
        commands = CommandReader(sys.stdin.buffer, lambda: _end(0, at_end), first)
        serve(commands, answers)
    except SystemExit as asked:
        _end(asked.code if isinstance(asked.code, int) else 1, at_end)
    except BaseException:
        # Inside this block: after it the objects that ``serve`` held are destroyed.
        with contextlib.suppress(OSError, ValueError):
            traceback.print_exc()
        _end(1, at_end)


def _end(code: int, at_end: Callable[[], None]) -> NoReturn:
    at_end()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)


def follow_parent() -> None:
    """End this process with the one that started it, where that one asked for it by ``PARENT_VARIABLE``.

    For a program that does not read its stdin: the parent holds it open. What this process starts does not inherit the
    wish. Without the kernel's help the end is a SIGTERM, which the program may catch to save its work.
    """
    if PARENT_VARIABLE not in os.environ:
        return
    end_with_parent()
    del os.environ[PARENT_VARIABLE]
    CommandReader(sys.stdin.buffer, lambda: os.kill(os.getpid(), signal.SIGTERM))


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends; Linux only, else nothing."""
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415  (not needed elsewhere)

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    parent = os.environ.get(PARENT_VARIABLE, "")
    if parent.isdecimal() and int(parent) != os.getppid():
        # The parent ended before the kernel was asked.
        os._exit(0)
