"""One child process of an engine: start it, wait until it serves, keep its last words, end it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import deque

import psutil

from peft_daemon import child_processes
from peft_daemon.errors import EngineFailed

STDERR_LINES = 40
LINE_LIMIT = 1 << 20
"""Longest line in bytes that a child may write."""


class ChildGone(Exception):
    """The child closed the connection: its process is dying or dead."""


def default_threads() -> int:
    """The physical cores this process may use: hyper-threads only get in each other's way when decoding."""
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed))


class EngineProcess:
    """A running child that speaks first (one line on stdout) and lives until its stdin closes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self._reader = asyncio.create_task(self._collect_stderr())

    @classmethod
    async def spawn(cls, module: str, first_line: bytes) -> EngineProcess:
        """Start ``python -m module`` and give it its configuration.

        Secrets travel on stdin: a command line or an environment can be read by others.
        """
        process = await child_processes.start_async(
            child_processes.python_module(module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
            environ={**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"},
            # Ctrl-C in a terminal goes to the daemon alone, which then ends the child in order.
            start_new_session=sys.platform != "win32",
        )
        self = cls(process)
        assert process.stdin is not None  # noqa: S101  (PIPE was asked for)
        with contextlib.suppress(ConnectionError):
            process.stdin.write(first_line + b"\n")
            await process.stdin.drain()
        return self

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def last_words(self) -> str:
        """The end of what the child wrote to stderr."""
        return " | ".join(list(self._stderr)[-4:])

    def memory_bytes(self) -> int:
        """Resident memory now; 0 once it has ended."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0

    async def first_answer(self, timeout_s: float) -> bytes:
        """The line that says it serves; raises EngineFailed with the child's last words if it dies or hangs."""
        assert self._process.stdout is not None  # noqa: S101  (PIPE was asked for)
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), timeout_s)
        except TimeoutError:
            raise EngineFailed(
                f"the engine did not start within {timeout_s:.0f} s",
                why=self.last_words,
                fix="Run `peft-daemon doctor`",
            ) from None
        if not line:
            code = await self._process.wait()
            await self._reader
            raise EngineFailed(
                "the engine could not load the model",
                why=self.last_words or f"exit code {code}",
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
        """The next line it writes to its stdout; raises ChildGone when it has ended."""
        assert self._process.stdout is not None  # noqa: S101  (PIPE was asked for)
        with contextlib.suppress(ConnectionError):
            if line := await self._process.stdout.readline():
                return line
        raise ChildGone

    async def wait(self) -> int:
        """Wait for its end; the exit code (negative: the signal)."""
        return await self._process.wait()

    async def stop(self, grace_s: float = 2.0) -> None:
        """Close its stdin, which ends it; kill it if that does not help. Safe to call twice."""
        if self._process.stdin is not None:
            with contextlib.suppress(ConnectionError, OSError):
                self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), grace_s)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await self._reader

    async def _collect_stderr(self) -> None:
        assert self._process.stderr is not None  # noqa: S101  (PIPE was asked for)
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:  # a line longer than the reader's buffer is no message
                continue
            if not line:
                return
            if text := line.decode(errors="replace").strip():
                self._stderr.append(text)
