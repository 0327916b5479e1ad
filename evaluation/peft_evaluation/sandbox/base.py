"""The interface of a sandbox, and the limits and results of code that runs in one.

Every implementation of ``Sandbox`` has to pass ``tests/integration/evaluation/test_sandbox_escapes.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

INSIDE = Path(__file__).parent / "inside"
"""The modules that run inside; a sandbox contains this folder and no other of this project."""
PACKAGE = f"{__package__}.inside"
OPTIONS = ("-I", "-S", "-B", "-X", "utf8")
"""Options of the interpreter: ignore the environment and installed packages, write no bytecode files."""


def entry_command(entry: str, root: str) -> tuple[str, ...]:
    """Return the interpreter's arguments for an entry point ``module.function`` of ``inside``.

    ``root`` is the folder that has ``PACKAGE``.
    """
    module, _, function = entry.partition(".")
    code = f"import sys; sys.path.insert(0, {root!r}); from {PACKAGE}.{module} import {function}; {function}()"
    return *OPTIONS, "-c", code


class SandboxOutcome(StrEnum):
    """The result of running one answer."""

    PASSED = "passed"
    FAILED = "failed"
    """An assertion failed, or the output is not the expected one."""
    RAISED = "raised"
    """The code under test raised an exception; this includes syntax errors."""
    CRASHED = "crashed"
    """Its process ended before the tests did."""
    TIMEOUT = "timeout"
    OUTPUT = "too much output"


@dataclass(frozen=True, kw_only=True)
class SandboxVerdict:
    """An outcome, and the reason for it, for people."""

    outcome: SandboxOutcome
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class SandboxLimits:
    """The limits of one process."""

    seconds: float = 10.0
    """Wall-clock time; the limit of processor time is about two seconds more."""
    memory_bytes: int = 2**30
    """Address space."""
    file_bytes: int = 8 * 2**20
    """Size of each file it writes (standard output included), and of all together."""


@dataclass(frozen=True, kw_only=True)
class SandboxWorkspace:
    """A folder for a repository's tests inside a sandbox, and their interpreter.

    The folder has the path of the user's repository, but it is empty and writable.
    """

    folder: str
    """Absolute path; the content of this folder outside is not visible inside."""
    room_bytes: int
    """Bytes that can be written into it."""
    python: str
    """The interpreter's real path."""
    mounts: tuple[str, ...]
    """Absolute paths that can be read inside: the interpreter's libraries and installed packages."""


@dataclass(frozen=True)
class Launch:
    """The command to execute, and the file descriptors it inherits; the caller closes them when it has started."""

    command: tuple[str, ...]
    descriptors: tuple[int, ...] = ()


class Sandbox(Protocol):
    """A way to start a process that can reach only what it is given."""

    @property
    def name(self) -> str:
        """Its name in reports."""

    def launch(self, entry: str, arguments: Sequence[str], limits: SandboxLimits) -> Launch:
        """Return the command for an entry point of ``inside``, which can reach only inherited file descriptors."""

    def workspace(self, workspace: SandboxWorkspace) -> Sandbox:
        """Return a sandbox that runs in ``workspace`` with its interpreter; raises InvalidInput if it cannot."""
