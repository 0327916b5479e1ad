"""The child's side of ``EngineProcess``: reads lines from stdin, answers on stdout, and ends with its parent.

A parent that is killed can end nothing, so the child sees to that itself, whatever its threads do. On Linux the kernel
kills it. Everywhere a thread waits for the end of stdin from the first moment on and then ends the process. Neither
that nor an error ever unwinds native code: llama.cpp's destructor waits for threads that may never end.
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

PARENT_VARIABLE = "PEFT_DAEMON_PARENT_PID"
"""Names the process that started the child; the kernel tells of the death of the parent that it has by then."""
PR_SET_PDEATHSIG = 1


class CommandReader:
    """The lines of a stream, read by a thread of its own, which calls ``on_end`` behind the last one."""

    def __init__(self, stream: BinaryIO, on_end: Callable[[], object]) -> None:
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(stream, on_end), name="commands", daemon=True).start()

    def next(self) -> bytes:
        """Wait for the next line."""
        return self._lines.get()

    def waiting(self) -> bytes | None:
        """The next line if it is here already."""
        try:
            return self._lines.get_nowait()
        except queue.Empty:
            return None

    def _read(self, stream: BinaryIO, on_end: Callable[[], object]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := stream.readline():
                self._lines.put(line)
        on_end()


def run_child(serve: Callable[[CommandReader, BinaryIO], NoReturn]) -> NoReturn:
    """Serve until the parent closes stdin or dies, or ``serve`` raises; then end this process.

    ``serve`` gets the lines of stdin and what its answers are written to. Libraries that print write to stderr.
    """
    end_with_parent()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # Nothing here is worth an orderly end: what is to be kept was saved on the parent's order.
    commands = CommandReader(sys.stdin.buffer, lambda: os._exit(0))
    try:
        serve(commands, answers)
    except SystemExit as asked:
        _end(asked.code if isinstance(asked.code, int) else 1)
    except BaseException:
        # Inside this block: behind it what ``serve`` held is destroyed.
        with contextlib.suppress(OSError, ValueError):
            traceback.print_exc()
        _end(1)


def _end(code: int) -> NoReturn:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends; does nothing but on Linux."""
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415  (not needed elsewhere)

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    parent = os.environ.get(PARENT_VARIABLE, "")
    if parent.isdecimal() and int(parent) != os.getppid():
        # It died before the kernel was asked.
        os._exit(0)
