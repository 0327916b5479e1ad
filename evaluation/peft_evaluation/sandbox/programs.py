"""A whole program under test: a text on its standard input, and what it prints is compared here, outside."""

from __future__ import annotations

import math
import os
import tempfile
import time

from peft_evaluation.sandbox.base import Limits, Outcome, Sandbox, Verdict
from peft_evaluation.sandbox.process import Process, handed

RELATIVE, ABSOLUTE = 1e-5, 1e-8
"""How far numbers with a point may be off; as in the checker published with APPS."""


def run_program(code: str, given: str, expected: str, sandbox: Sandbox, limits: Limits) -> Verdict:
    """Run ``code`` with ``given`` on standard input. Raises OSError when no process can be started."""
    ends = time.monotonic() + limits.seconds
    stdin = handed(given.encode())
    try:
        with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as complaint:
            with Process(
                sandbox, "program", {"code": code}, limits, stdin=stdin, stdout=printed, stderr=complaint
            ) as program:
                status = program.wait(ends - time.monotonic())
            if status is None:
                return Verdict(outcome=Outcome.TIMEOUT, why=f"{limits.seconds:g} s")
            if os.fstat(printed.fileno()).st_size >= limits.file_bytes:
                return Verdict(outcome=Outcome.OUTPUT, why=f"{limits.file_bytes} bytes")
            printed.seek(0)
            output = printed.read().decode(errors="replace")
            complaint.seek(0)
            raised = complaint.read().decode(errors="replace").strip().rpartition("\n")[2]
    finally:
        os.close(stdin)
    if status != 0:
        return Verdict(outcome=Outcome.RAISED, why=raised[:200] or f"exit status {status}")
    if not same_output(output, expected):
        return Verdict(outcome=Outcome.FAILED, why=f"printed {output[:120]!r}")
    return Verdict(outcome=Outcome.PASSED)


def same_output(printed: str, expected: str) -> bool:
    """Whether the words are the same in the same order, numbers with a point within a small distance."""
    ours, theirs = printed.split(), expected.split()
    return len(ours) == len(theirs) and all(map(_same_word, ours, theirs))


def _same_word(ours: str, theirs: str) -> bool:
    if ours == theirs:
        return True
    if "." not in ours + theirs:
        return False
    try:
        return math.isclose(float(ours), float(theirs), rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    except ValueError:
        return False
