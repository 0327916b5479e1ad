"""A function under test: its code in one confined process, the tests in another, plain data between them.

The code under test sees the arguments it is called with and nothing else: expected values, asserts and the verdict's
secret are in the other process. Whatever it does to itself, it can only answer a call or end.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import ExitStack

import msgspec

from peft_evaluation.sandbox.base import Limits, Outcome, Sandbox, Verdict
from peft_evaluation.sandbox.process import Process

LONGEST_VERDICT = 4096


def run_function(code: str, function: str, tests: tuple[str, ...], sandbox: Sandbox, limits: Limits) -> Verdict:
    """Execute ``tests`` one after the other, then their ``check(candidate)``, with ``function`` of ``code``.

    Raises OSError when no process can be started.
    """
    secret = secrets.token_hex(16)
    ends = time.monotonic() + limits.seconds
    with ExitStack() as ours, ExitStack() as theirs:
        call_from, call_to = _pipe(theirs, theirs)
        reply_from, reply_to = _pipe(theirs, theirs)
        verdict_from, verdict_to = _pipe(ours, theirs)
        ours.enter_context(
            Process(
                sandbox,
                "candidate",
                {"code": code, "function": function},
                limits,
                descriptors=(call_from, reply_to),
            )
        )
        judge = ours.enter_context(
            Process(
                sandbox,
                "judge",
                {"tests": tests, "function": function, "secret": secret},
                limits,
                descriptors=(call_to, reply_from, verdict_to),
            )
        )
        # Whoever of the two is left alone then reads the end of its pipe.
        theirs.close()
        if judge.wait(ends - time.monotonic()) is None:
            return Verdict(outcome=Outcome.TIMEOUT, why=f"{limits.seconds:g} s")
        return _verdict(os.read(verdict_from, LONGEST_VERDICT), secret)


def _pipe(reading: ExitStack, writing: ExitStack) -> tuple[int, int]:
    """The two ends, each closed with its stack."""
    source, sink = os.pipe()
    reading.callback(os.close, source)
    writing.callback(os.close, sink)
    return source, sink


def _verdict(line: bytes, secret: str) -> Verdict:
    try:
        said, outcome, why = msgspec.json.decode(line, type=tuple[str, Outcome, str])
    except (ValueError, RecursionError):
        return Verdict(outcome=Outcome.CRASHED, why="the tests ended without a verdict")
    if not secrets.compare_digest(said, secret):
        return Verdict(outcome=Outcome.CRASHED, why="a verdict with a wrong secret")
    return Verdict(outcome=outcome, why=why)
