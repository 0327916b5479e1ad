"""A repository's own tests, run with one file changed: pytest in one confined process, its report judged here.

Code under test and tests share that process, so what holds for functions does not hold here: code that sets out to
deceive pytest can. What is not the end of all tests, each passed by pytest's own account, is never a pass: ending the
process early, printing, and changing pytest, unittest or built-in functions are not. docs/sandbox.md has the rest.
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

LONGEST_REPORT = 32 * 2**20
MEMORY, FILE = 4 * 2**30, 32 * 2**20
"""Bytes; libraries for numbers ask for much address space and use little of it."""


@dataclass(frozen=True, kw_only=True)
class PytestSuite:
    """What is run, and what passes with the user's own code."""

    workspace: SandboxWorkspace
    pack: str
    """The file with all files: ``repo_tests.preparation.pack``."""
    site: tuple[str, ...]
    """Folders of installed packages."""
    prefix: str
    """The interpreter's ``sys.prefix``."""
    arguments: tuple[str, ...]
    """Pytest's."""
    digest: str
    """sha256 of the files, the interpreter and the arguments: where they lie is not in it."""
    passes: tuple[str, ...] | None = None
    """Ids of the tests to run; None: all."""
    changed: frozenset[str] = field(default_factory=frozenset)
    """Functions of pytest, unittest and the interpreter that the user's own tests replace and leave so."""
    seconds: float = 600.0
    """Wall clock."""

    @property
    def limits(self) -> SandboxLimits:
        """Of one run."""
        return SandboxLimits(seconds=self.seconds, memory_bytes=MEMORY, file_bytes=FILE)


class PytestReport(msgspec.Struct, frozen=True, kw_only=True):
    """The report of one run, as ``inside.suite`` writes it."""

    secret: str
    passed: frozenset[str]
    files: frozenset[str]
    """Real paths of those that tests are in."""
    changed: frozenset[str]
    collected: int
    """Tests found."""
    outcome: SandboxOutcome
    """Of the first test that did not pass; meaningless where all did."""
    why: str


def run_suite(
    suite: PytestSuite, file: tuple[str, str] | None, sandbox: Sandbox, limits: SandboxLimits
) -> SandboxVerdict:
    """Run the tests of ``suite.passes`` with ``file`` (a path below the folder, and its text) as given.

    Raises OSError when no process can be started, InvalidInput for a sandbox that has no workspace.
    """
    said = report_suite(suite, file, sandbox, limits)
    if isinstance(said, SandboxVerdict):
        return said
    if changed := said.changed - suite.changed:
        return SandboxVerdict(
            outcome=SandboxOutcome.FAILED, why=f"changes what judges it: {', '.join(sorted(changed))}"[:300]
        )
    if suite.passes is None or not said.passed.issuperset(suite.passes):
        outcome = said.outcome if said.outcome is not SandboxOutcome.PASSED else SandboxOutcome.FAILED
        return SandboxVerdict(outcome=outcome, why=said.why[:300])
    return SandboxVerdict(outcome=SandboxOutcome.PASSED)


def report_suite(
    suite: PytestSuite, file: tuple[str, str] | None, sandbox: Sandbox, limits: SandboxLimits
) -> PytestReport | SandboxVerdict:
    """What the tests said, or why they said nothing. Raises what ``run_suite`` raises."""
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
        complaint = ours.enter_context(tempfile.TemporaryFile())
        confined = sandbox.workspace(suite.workspace)
        with ConfinedProcess(
            confined, "suite.run_suite", job, limits, descriptors=descriptors, stderr=complaint
        ) as process:
            status = process.wait(ends - time.monotonic())
        if status is None:
            return SandboxVerdict(outcome=SandboxOutcome.TIMEOUT, why=f"{limits.seconds:g} s")
        found = _authentic_report(os.pread(descriptors[-1], LONGEST_REPORT, 0), secret)
        if found is not None:
            return found
        complaint.seek(0)
        last = complaint.read().decode(errors="replace").strip().rpartition("\n")[2]
        return SandboxVerdict(
            outcome=SandboxOutcome.CRASHED, why=f"the tests ended without a report; {last}"[:300].rstrip("; ")
        )


def _authentic_report(line: bytes, secret: str) -> PytestReport | None:
    try:
        said = msgspec.json.decode(line, type=PytestReport)
    except (ValueError, RecursionError):
        return None
    return said if secrets.compare_digest(said.secret.encode(), secret.encode()) else None
