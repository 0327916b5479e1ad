"""The parent's side of a child process: start it, exchange lines with it, keep the end of its stderr, end it.

The child's side is ``child_main``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections import deque

import psutil

from peft_core import processes
from peft_core.child_main import PARENT_VARIABLE
from peft_core.errors import EngineFailed
from peft_core.process_identity import kill_tree

MAX_STDERR_LINES = 40
"""Lines of its stderr that are kept."""
MAX_LINE_BYTES = 1 << 20
"""Longest line that a child may write."""
STOPPED_CHECK_S = 1.0
"""Interval at which a child that starts is checked: one stopped by a signal writes nothing and does not end."""
STOPPED_CHECKS = 3
"""Checks in a row that have to find it stopped."""
STDERR_WAIT_S = 1.0
"""Longest wait for the rest of a dead child's stderr; processes that it started may hold the pipe open."""


class ChildGone(Exception):
    """The connection to a child process is broken: it has ended, is ending, or can open nothing any more."""


_FRAME = re.compile(
    r"""
    \S*\([^()]*\)\s?\[0x[0-9a-f]+\]   # glibc: library.so(function+0x1f)[0x7f…]
    | \#\d+\s+.*                       # gdb, LLVM: #0  0x7f… in function ()
    | \d+\s+\S+\s+0x[0-9a-f]{8,}\s.*   # macOS: 3   library.dylib   0x0000000104… function + 4
    | Traceback\ \(most\ recent\ call\ last\):
    | \s+(File\ ".*",\ line\ \d+.*|\^+|~*\^+~*)
    """,
    re.VERBOSE,
)


def is_stack_frame(line: str) -> bool:
    """Return whether a line of a program's stderr is part of a stack trace, which tells a user nothing."""
    return _FRAME.fullmatch(line) is not None


class ChildProcess:
    """A running child: it writes one line to stdout when it is ready, and ends when its stdin is closed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stderr: deque[str] = deque(maxlen=MAX_STDERR_LINES)
        self._reader = asyncio.create_task(self._collect_stderr())

    @classmethod
    async def spawn(cls, module: str, configuration: bytes) -> ChildProcess:
        """Start ``python -m module`` and write its configuration, one line, to its stdin. Raises OSError.

        Secrets travel on stdin: a command line or an environment can be read by other processes.
        """
        process = await processes.start_async(
            processes.python_module(module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MAX_LINE_BYTES,
            environ={
                **os.environ,
                **{"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", PARENT_VARIABLE: str(os.getpid())},
            },
            # Ctrl-C in a terminal goes to the daemon alone, which then ends the child in order.
            start_new_session=sys.platform != "win32",
        )
        try:
            self = cls(process)
            assert process.stdin is not None  # noqa: S101  (PIPE was asked for)
            with contextlib.suppress(ConnectionError):
                process.stdin.write(configuration + b"\n")
                await process.stdin.drain()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise
        return self

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def stderr_tail(self) -> str:
        """The last lines that the child wrote to stderr, without stack frames, joined by `` | ``."""
        return " | ".join(list(self._stderr)[-4:])

    def memory_bytes(self) -> int:
        """Return the resident memory of it and its children; 0 when it has ended or the system does not tell."""
        try:
            return sum(int(each.memory_info().rss) for each in self._processes())
        except (psutil.Error, OSError):
            return 0

    def stopped(self) -> bool:
        """Return whether a signal has stopped it or its child: it lives, but does nothing until another signal."""
        try:
            return any(each.status() == psutil.STATUS_STOPPED for each in self._processes())
        except (psutil.Error, OSError):
            return False

    def _processes(self) -> list[psutil.Process]:
        child = psutil.Process(self.pid)
        return [child, *child.children(recursive=True)]

    async def first_line(self, timeout_s: float) -> bytes:
        """Return the line that says that the child is ready.

        Raises EngineFailed with the end of its stderr if it ends, stays stopped or is not ready in time.
        """
        assert self._process.stdout is not None  # noqa: S101  (PIPE was asked for)
        reading = asyncio.ensure_future(self._process.stdout.readline())
        try:
            await self._wait_for_line(reading, timeout_s)
            line = reading.result()
        except ValueError:
            raise EngineFailed("the engine answered nonsense", why="a line without an end") from None
        finally:
            reading.cancel()
        if not line:
            code = await self._process.wait()
            await self._finish_stderr()
            raise EngineFailed(
                "the engine could not load the model",
                why=self.stderr_tail or f"exit code {code}",
                fix="Run `peft-daemon doctor`",
            )
        return line

    def send(self, line: bytes) -> None:
        """Write one line to its stdin; raises ChildGone when that is closed."""
        stdin = self._process.stdin
        if stdin is None or stdin.is_closing():
            raise ChildGone
        stdin.write(line + b"\n")

    async def receive(self) -> bytes:
        """Return the next line of its stdout; raises ChildGone when it has ended."""
        assert self._process.stdout is not None  # noqa: S101  (PIPE was asked for)
        with contextlib.suppress(ConnectionError):
            if line := await self._process.stdout.readline():
                return line
        raise ChildGone

    async def wait(self) -> int:
        """Wait until it ends and return the exit code; a negative one is the signal that ended it."""
        return await self._process.wait()

    async def stop(self, grace_s: float = 2.0) -> None:
        """Close its stdin and wait until it ends; kill it after ``grace_s`` seconds. May be called twice."""
        if self._process.stdin is not None:
            with contextlib.suppress(ConnectionError, OSError):
                self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 0.0 if self.stopped() else grace_s)
        except TimeoutError:
            self.kill()
            await self._process.wait()
        except BaseException:
            self.kill()
            raise
        await self._finish_stderr()

    def kill(self) -> None:
        """Kill it with all that it has started, also when it is stopped by a signal; returns without waiting."""
        if self._process.returncode is None:
            with contextlib.suppress(psutil.Error):
                kill_tree(psutil.Process(self.pid))

    async def _wait_for_line(self, reading: asyncio.Future[bytes], timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        deadline, stopped = loop.time() + timeout_s, 0
        while True:
            left = deadline - loop.time()
            await asyncio.wait((reading,), timeout=max(0.0, min(STOPPED_CHECK_S, left)))
            if reading.done():
                return
            if left <= 0:
                raise EngineFailed(
                    f"the engine did not start within {timeout_s:.0f} s",
                    why=self.stderr_tail,
                    fix="Run `peft-daemon doctor`",
                )
            stopped = stopped + 1 if self.stopped() else 0
            if stopped >= STOPPED_CHECKS:
                raise EngineFailed(
                    "the engine hung while it started",
                    why="a signal stopped its process",
                    fix="It is ended and starts again by itself",
                )

    async def _finish_stderr(self) -> None:
        await asyncio.wait((self._reader,), timeout=STDERR_WAIT_S)

    async def _collect_stderr(self) -> None:
        assert self._process.stderr is not None  # noqa: S101  (PIPE was asked for)
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:  # a line longer than the reader's buffer is no message
                continue
            if not line:
                return
            if (text := line.decode(errors="replace").rstrip()) and not is_stack_frame(text):
                self._stderr.append(text.strip())
