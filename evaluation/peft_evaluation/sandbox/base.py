"""What a sandbox has to give, and the limits of what runs in one. Only values and the interface.

Whatever starts processes in a way of its own implements ``Sandbox`` and is held to the escapes in
``tests/integration/evaluation/test_sandbox_escapes.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

INSIDE = Path(__file__).parent / "inside"
"""The scripts that run within; a sandbox holds this folder and no other of this project."""
PACKAGE = f"{__package__}.inside"
OPTIONS = ("-I", "-S", "-B", "-X", "utf8")
"""Of the interpreter: nothing from the environment, no installed packages, no files written."""


def entry_command(entry: str, root: str) -> tuple[str, ...]:
    """Return the interpreter's arguments for an entry point ``module.function`` of ``inside``.

    ``root`` is the folder that has ``PACKAGE``.
    """
    module, _, function = entry.partition(".")
    code = f"import sys; sys.path.insert(0, {root!r}); from {PACKAGE}.{module} import {function}; {function}()"
    return *OPTIONS, "-c", code


class SandboxOutcome(StrEnum):
    """What became of one answer."""

    PASSED = "passed"
    FAILED = "failed"
    """An assertion did not hold, or what was printed is not what was expected."""
    RAISED = "raised"
    """The code under test raised an exception, a syntax error among others."""
    CRASHED = "crashed"
    """Its process ended before the tests did."""
    TIMEOUT = "timeout"
    OUTPUT = "too much output"


@dataclass(frozen=True, kw_only=True)
class SandboxVerdict:
    """An outcome, and for people what lies behind it."""

    outcome: SandboxOutcome
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class SandboxLimits:
    """Of one process under test."""

    seconds: float = 10.0
    """Wall clock; processor time is limited to the next whole second above it."""
    memory_bytes: int = 2**30
    """Address space."""
    file_bytes: int = 8 * 2**20
    """Of each file it writes, standard output among them, and of all of them together."""


@dataclass(frozen=True, kw_only=True)
class SandboxWorkspace:
    """A folder that code under test finds where the user has it, though empty and writable, and an interpreter."""

    folder: str
    """Absolute; what is in there outside does not exist inside."""
    room_bytes: int
    """Most that can be written into it."""
    python: str
    """The interpreter's real path."""
    mounts: tuple[str, ...]
    """Absolute paths of what is there to be read: the interpreter's libraries and installed packages."""


@dataclass(frozen=True)
class Launch:
    """What to execute, and the file descriptors made for it: to be inherited, and closed when it has started."""

    command: tuple[str, ...]
    descriptors: tuple[int, ...] = ()


class Sandbox(Protocol):
    """A way to start a process that reaches nothing but what it is handed."""

    @property
    def name(self) -> str:
        """For the report."""

    def launch(self, entry: str, arguments: Sequence[str], limits: SandboxLimits) -> Launch:
        """How to run an entry point of ``inside`` so that it reaches nothing but inherited file descriptors."""

    def workspace(self, workspace: SandboxWorkspace) -> Sandbox:
        """The same, started in ``workspace`` and with its interpreter. Raises InvalidInput where there is none."""
