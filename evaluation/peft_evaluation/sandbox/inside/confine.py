"""Limits that a process in a sandbox sets for itself at its start and cannot raise again; and simple entry points."""

from __future__ import annotations

import json
import os
import resource
import sys


def limit(seconds: int, memory_bytes: int, file_bytes: int) -> None:
    """Set hard limits for an answer, and raise the interpreter's own limits (recursion, digits of integers)."""
    limit_resources(seconds, memory_bytes, file_bytes)
    sys.setrecursionlimit(10_000)
    # 0: integers may have any number of digits.
    sys.set_int_max_str_digits(0)


def limit_resources(seconds: int, memory_bytes: int, file_bytes: int, files: int = 64) -> None:
    """Set hard limits on processor time, address space, size of written files, open files and core dumps."""
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def silence(*numbers: int) -> None:
    """Connect these file descriptors to /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in numbers:
        os.dup2(null, number)
    os.close(null)


def read_job() -> bytes:
    """Read the job from the file descriptor that the first argument names, and close it."""
    number = int(sys.argv[1])
    with os.fdopen(number, "rb") as file:
        return file.read()


def end_at_once() -> None:
    """Do nothing; used to check that the sandbox works."""


def run_program() -> None:
    """Run a whole program as ``__main__`` with the test's standard input; exit with 1 if it raises an exception.

    Argument: the job's file descriptor. The caller compares the output.
    """
    job = json.loads(read_job())
    limit(job["seconds"], job["memory_bytes"], job["file_bytes"])
    code = compile(job["code"], "solution.py", "exec")
    exec(code, {"__name__": "__main__", "__builtins__": __builtins__})  # noqa: S102
