"""Run a repository's own tests with one file changed: pytest in one confined process, whose report is judged here.

Unlike the functions of ``execution``, the code under test and its tests share a process, so code that is written to
deceive pytest can do so. An answer passes only if all tests were run and pytest reports each as passed. Ending the
process early, printing, or changing pytest, unittest or built-in functions is not a pass. docs/sandbox.md has more.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

import msgspec

from peft_evaluation.sandbox.base import Sandbox, SandboxLimits, SandboxOutcome, SandboxVerdict, SandboxWorkspace
from peft_evaluation.sandbox.execution import ConfinedProcess, memory_file

MAX_REPORT_BYTES = 32 * 2**20
MEMORY_BYTES, FILE_BYTES = 4 * 2**30, 32 * 2**20
"""Limits of a run; numerical libraries reserve much address space and use little of it."""


@dataclass(frozen=True, kw_only=True)
class PytestSuite:
    """A repository's tests, and which of them pass with the user's own code."""

    workspace: SandboxWorkspace
    pack: str
    """Path of the file with the repository's files; see ``repo_tests.preparation.pack``."""
    site: tuple[str, ...]
    """Folders of installed packages."""
    prefix: str
    """The interpreter's ``sys.prefix``."""
    arguments: tuple[str, ...]
    """Arguments of pytest."""
    digest: str
    """sha256 of the files, the interpreter and the arguments; it does not depend on the repository's path."""
    passes: tuple[str, ...] | None = None
    """Ids of the tests to run; None: all."""
    changed: frozenset[str] = field(default_factory=frozenset)
    """Functions of pytest, unittest and the interpreter that the user's own tests replace for good."""
    seconds: float = 600.0
    """Time limit of a run, wall clock."""

    @property
    def limits(self) -> SandboxLimits:
        """The limits of one run."""
        return SandboxLimits(seconds=self.seconds, memory_bytes=MEMORY_BYTES, file_bytes=FILE_BYTES)


class PytestReport(msgspec.Struct, frozen=True, kw_only=True):
    """The report of one run, as ``inside.suite`` writes it."""

    secret: str
    passed: frozenset[str]
    files: frozenset[str]
    """Real paths of the files with tests."""
    changed: frozenset[str]
    """Functions of pytest, unittest and the interpreter that were replaced."""
    collected: int
    """Number of tests found."""
    outcome: SandboxOutcome
    """Outcome of the first test that did not pass; meaningless if all passed."""
    why: str


def run_suite(
    suite: PytestSuite, file: tuple[str, str] | None, sandbox: Sandbox, limits: SandboxLimits
) -> SandboxVerdict:
    """Run the tests of ``suite.passes`` with one file (its relative path and text) replaced.

    Raises OSError if no process can be started, InvalidInput for a sandbox without workspaces.
    """
    report = report_suite(suite, file, sandbox, limits)
    if isinstance(report, SandboxVerdict):
        return report
    if changed := report.changed - suite.changed:
        return SandboxVerdict(
            outcome=SandboxOutcome.FAILED, why=f"changes the test tools: {', '.join(sorted(changed))}"[:300]
        )
    if suite.passes is None or not report.passed.issuperset(suite.passes):
        outcome = report.outcome if report.outcome is not SandboxOutcome.PASSED else SandboxOutcome.FAILED
        return SandboxVerdict(outcome=outcome, why=report.why[:300])
    return SandboxVerdict(outcome=SandboxOutcome.PASSED)


def report_suite(
    suite: PytestSuite, file: tuple[str, str] | None, sandbox: Sandbox, limits: SandboxLimits
) -> PytestReport | SandboxVerdict:
    """Run the tests and return their report, or the reason why there is none.

    Raises what ``run_suite`` raises.
    """
    secret = secrets.token_hex(16)
    path, text = file or ("", "")
    job: dict[str, object] = {
        "path": path,
        "text": text,
        "expected": suite.passes,
        "arguments": suite.arguments,
        "site": suite.site,
        "prefix": suite.prefix,
    }
    ends = time.monotonic() + limits.seconds
    with ExitStack() as ours:
        descriptors = (
            os.open(suite.pack, os.O_RDONLY | os.O_CLOEXEC),
            memory_file(secret.encode()),
            os.memfd_create("report"),
        )
        for each in descriptors:
            ours.callback(os.close, each)
        errors = ours.enter_context(tempfile.TemporaryFile())
        confined = sandbox.workspace(suite.workspace)
        with ConfinedProcess(
            confined, "suite.run_suite", job, limits, descriptors=descriptors, stderr=errors
        ) as process:
            status = process.wait(ends - time.monotonic())
        if status is None:
            return SandboxVerdict(outcome=SandboxOutcome.TIMEOUT, why=f"{limits.seconds:g} s")
        found = _authentic_report(os.pread(descriptors[-1], MAX_REPORT_BYTES, 0), secret)
        if found is not None:
            return found
        errors.seek(0)
        last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        return SandboxVerdict(
            outcome=SandboxOutcome.CRASHED, why=f"the tests ended without a report; {last}"[:300].rstrip("; ")
        )


def _authentic_report(line: bytes, secret: str) -> PytestReport | None:
    try:
        report = msgspec.json.decode(line, type=PytestReport)
    except (ValueError, RecursionError):
        return None
    return report if secrets.compare_digest(report.secret.encode(), secret.encode()) else None
