"""The types of an evaluation's items: a question, its reference answer, and the tests of an answer, if any."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from peft_core.code.document import lines_of
from peft_evaluation.sandbox.pytest_suite import PytestSuite
from peft_tuning.data.datasets.apps import ProblemTests
from peft_tuning.data.examples import CompletionExample, IntentExample


@dataclass(frozen=True, kw_only=True)
class FunctionTests:
    """Assertions about one function."""

    entry_point: str
    """The function's name."""
    preamble: str
    """Code before the function: imports, and helpers for the assertions."""
    stub: str
    """The beginning of the function, if an answer may be its body alone; else empty."""
    check: str
    """Code that defines ``check(candidate)``, which has the assertions."""


@dataclass(frozen=True, kw_only=True)
class RepositoryTests:
    """A repository's own tests, for a hole in one of its files."""

    path: str
    """The file, relative to the repository."""
    before: str
    """The text of the file before the hole."""
    after: str
    """The text of the file after the hole."""
    suite: PytestSuite


SampleTests = FunctionTests | ProblemTests | RepositoryTests


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One question."""

    example: CompletionExample
    """The question and its reference answer, which may be empty if there are tests."""
    group: str = ""
    """Name of the group that reports show apart, e.g. a difficulty; empty: none."""
    tests: SampleTests | None = None

    @property
    def id(self) -> str:
        """Unique in its data set."""
        return self.example.id

    @property
    def reference(self) -> str:
        """The correct answer, or one of them."""
        return self.example.code if isinstance(self.example, IntentExample) else self.example.middle

    @property
    def question(self) -> str:
        """The question as reports show it; a hole is marked with ⟨…⟩."""
        if isinstance(self.example, IntentExample):
            return self.example.intent
        before = "".join(lines_of(self.example.prefix)[-12:]).removesuffix("\n")
        after = "".join(lines_of(self.example.suffix)[:6]).removesuffix("\n")
        return f"{before}⟨…⟩{after}"


@dataclass(frozen=True, kw_only=True)
class SampleSet:
    """The questions of an evaluation, and the solved examples that may be shown with them."""

    name: str
    part: str
    """``test``, or the part of it: ``first 100 of test``."""
    items: tuple[Sample, ...]
    pool: tuple[CompletionExample, ...]
    """Training examples that strategies may show; none of them is an item."""
    max_tokens: int
    """Longest answer, in tokens."""
    licence: str
    provenance: str
    notes: tuple[str, ...] = ()
    root: Path | None = None
    """The repository, if the items are holes in its files."""

    @property
    def digest(self) -> str:
        """sha256 of the questions, references and tests in their order."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(msgspec.json.encode(_digested(item)))
        return digest.hexdigest()

    def first(self, count: int) -> SampleSet:
        """Return the set with its first ``count`` items only."""
        if count >= len(self.items):
            return self
        return replace(self, items=self.items[:count], part=f"first {count} of {self.part}")


def _digested(item: Sample) -> object:
    """Return the parts of an item that its digest covers: not the tests' folder, nor their time limit."""
    if not isinstance(tests := item.tests, RepositoryTests):
        return item
    return item.example, item.group, tests.path, tests.before, tests.after, tests.suite.digest


def groups(items: Sequence[Sample]) -> tuple[str, ...]:
    """Return the names of the groups in the order of their first item; empty if items have no groups."""
    return tuple(dict.fromkeys(item.group for item in items if item.group))
