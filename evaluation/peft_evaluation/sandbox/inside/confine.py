"""What a process in a sandbox does to itself first: limits that it cannot raise again, and silence."""

from __future__ import annotations

import os
import resource
import sys


def limit(seconds: int, memory_bytes: int, file_bytes: int) -> None:
    """Hard limits for one answer alone, for whom the interpreter's own limits are lifted."""
    resources(seconds, memory_bytes, file_bytes)
    sys.setrecursionlimit(10_000)
    # Whole numbers of any length are values like others.
    sys.set_int_max_str_digits(0)


def resources(seconds: int, memory_bytes: int, file_bytes: int, files: int = 64) -> None:
    """Hard limits on processor time, address space, size of written files, open files and core dumps."""
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def silence(*numbers: int) -> None:
    """Let these file descriptors lead nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in numbers:
        os.dup2(nowhere, number)
    os.close(nowhere)


def job() -> bytes:
    """What the parent handed over in the file descriptor named by the first argument; closed afterwards."""
    number = int(sys.argv[1])
    with os.fdopen(number, "rb") as file:
        return file.read()
