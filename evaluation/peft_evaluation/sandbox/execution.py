"""Run one answer in confined processes: a function with a judge, or a whole program.

A function's process sees only the arguments of its calls. The expected values, the assertions and the secret that
authenticates the verdict are in the judge's process. A program's output is compared here, outside the sandbox.
"""

from __future__ import annotations

import math
import os
import secrets
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import IO

import msgspec

from peft_core.processes import start
from peft_evaluation.sandbox.base import Sandbox, SandboxLimits, SandboxOutcome, SandboxVerdict


def memory_file(content: bytes) -> int:
    """Return a new file descriptor from which ``content`` can be read."""
    descriptor = os.memfd_create("input")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


class ConfinedProcess:
    """A process in a sandbox; use it in a ``with`` block, whose end kills it and deletes its files."""

    def __init__(
        self,
        sandbox: Sandbox,
        entry: str,
        job: dict[str, object],
        limits: SandboxLimits,
        *,
        descriptors: Sequence[int] = (),
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.DEVNULL,
    ) -> None:
        """``job`` is the entry point's input; ``descriptors`` are inherited, and their numbers are its arguments."""
        content = job | {
            "seconds": int(limits.seconds) + 2,
            "memory_bytes": limits.memory_bytes,
            "file_bytes": limits.file_bytes,
        }
        number = memory_file(msgspec.json.encode(content))
        launch = sandbox.launch(entry, [str(number), *map(str, descriptors)], limits)
        folder = tempfile.TemporaryDirectory(prefix="pd-run-")
        try:
            self._process = start(
                launch.command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(number, *descriptors, *launch.descriptors),
                start_new_session=True,
                cwd=folder.name,
                environ={},
            )
        except BaseException:
            folder.cleanup()
            raise
        finally:
            for descriptor in (number, *launch.descriptors):
                os.close(descriptor)
        self._folder = folder

    def __enter__(self) -> ConfinedProcess:
        return self

    def wait(self, seconds: float) -> int | None:
        """Return its exit status; None if it has not ended after that time."""
        # Popen.wait polls at growing intervals, which takes longer than most programs run.
        ended = os.pidfd_open(self._process.pid)
        try:
            ready, _, _ = select.select([ended], [], [], max(seconds, 0.0))
        finally:
            os.close(ended)
        return self._process.wait() if ready else None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()


MAX_VERDICT_BYTES = 4096


def run_function(
    code: str, function: str, tests: tuple[str, ...], sandbox: Sandbox, limits: SandboxLimits
) -> SandboxVerdict:
    """Execute ``tests``, then the ``check(candidate)`` that they define, with ``function`` of ``code``.

    Raises OSError if no process can be started.
    """
    secret = secrets.token_hex(16)
    ends = time.monotonic() + limits.seconds
    with ExitStack() as ours, ExitStack() as theirs:
        call_from, call_to = _pipe(theirs, theirs)
        reply_from, reply_to = _pipe(theirs, theirs)
        verdict_from, verdict_to = _pipe(ours, theirs)
        ours.enter_context(
            ConfinedProcess(
                sandbox,
                "functions.answer_calls",
                {"code": code, "function": function},
                limits,
                descriptors=(call_from, reply_to),
            )
        )
        judge = ours.enter_context(
            ConfinedProcess(
                sandbox,
                "functions.judge_function",
                {"tests": tests, "function": function, "secret": secret},
                limits,
                descriptors=(call_to, reply_from, verdict_to),
            )
        )
        # Closed here, so that one process reads the end of its pipe when the other has ended.
        theirs.close()
        if judge.wait(ends - time.monotonic()) is None:
            return SandboxVerdict(outcome=SandboxOutcome.TIMEOUT, why=f"{limits.seconds:g} s")
        return _verdict(os.read(verdict_from, MAX_VERDICT_BYTES), secret)


def _pipe(reading: ExitStack, writing: ExitStack) -> tuple[int, int]:
    """Return the two ends of a pipe, each of which is closed with its stack."""
    source, sink = os.pipe()
    reading.callback(os.close, source)
    writing.callback(os.close, sink)
    return source, sink


def _verdict(line: bytes, secret: str) -> SandboxVerdict:
    try:
        said, outcome, why = msgspec.json.decode(line, type=tuple[str, SandboxOutcome, str])
    except (ValueError, RecursionError):
        return SandboxVerdict(outcome=SandboxOutcome.CRASHED, why="the tests ended without a verdict")
    if not secrets.compare_digest(said, secret):
        return SandboxVerdict(outcome=SandboxOutcome.CRASHED, why="a verdict with a wrong secret")
    return SandboxVerdict(outcome=outcome, why=why)


RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-5, 1e-8
"""Tolerances for numbers with a decimal point, as in the checker published with APPS."""


def run_program(code: str, given: str, expected: str, sandbox: Sandbox, limits: SandboxLimits) -> SandboxVerdict:
    """Run ``code`` with ``given`` on standard input, and compare its output.

    Raises OSError without a process.
    """
    ends = time.monotonic() + limits.seconds
    stdin = memory_file(given.encode())
    try:
        with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as errors:
            with ConfinedProcess(
                sandbox, "confine.run_program", {"code": code}, limits, stdin=stdin, stdout=printed, stderr=errors
            ) as program:
                status = program.wait(ends - time.monotonic())
            if status is None:
                return SandboxVerdict(outcome=SandboxOutcome.TIMEOUT, why=f"{limits.seconds:g} s")
            if os.fstat(printed.fileno()).st_size >= limits.file_bytes:
                return SandboxVerdict(outcome=SandboxOutcome.OUTPUT, why=f"{limits.file_bytes} bytes")
            printed.seek(0)
            output = printed.read().decode(errors="replace")
            errors.seek(0)
            raised = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
    finally:
        os.close(stdin)
    if status != 0:
        return SandboxVerdict(outcome=SandboxOutcome.RAISED, why=raised[:200] or f"exit status {status}")
    if not same_output(output, expected):
        return SandboxVerdict(outcome=SandboxOutcome.FAILED, why=f"printed {output[:120]!r}")
    return SandboxVerdict(outcome=SandboxOutcome.PASSED)


def same_output(printed: str, expected: str) -> bool:
    """Return whether both have the same words in the same order; numbers with a decimal point may differ slightly."""
    ours, theirs = printed.split(), expected.split()
    return len(ours) == len(theirs) and all(map(_same_word, ours, theirs))


def _same_word(ours: str, theirs: str) -> bool:
    if ours == theirs:
        return True
    if "." not in ours + theirs:
        return False
    try:
        return math.isclose(float(ours), float(theirs), rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)
    except ValueError:
        return False
