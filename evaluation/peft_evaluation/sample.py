"""What is asked: a question, what the right answer is, and how a program that answers it can be tested. Only values."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from peft_core.code.document import lines_of
from peft_evaluation.sandbox.pytest_suite import PytestSuite
from peft_tuning.data.datasets.apps import ProblemTests
from peft_tuning.data.examples import FillExample, IntentExample


@dataclass(frozen=True, kw_only=True)
class FunctionTests:
    """Asserts about one function."""

    entry_point: str
    preamble: str
    """What stands before the function: imports, helpers the asserts use."""
    stub: str
    """The function's beginning, where the answer may be its body alone; else empty."""
    check: str
    """Defines ``check(candidate)``, which asserts."""


@dataclass(frozen=True, kw_only=True)
class RepositoryTests:
    """A repository's own tests, with one of its files made of what stands around a hole and what fills it."""

    path: str
    """Of the file, below the repository."""
    before: str
    after: str
    suite: PytestSuite


SampleTests = FunctionTests | ProblemTests | RepositoryTests


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One question."""

    example: IntentExample | FillExample
    """With the reference answer, which may be empty where only tests decide."""
    group: str = ""
    tests: SampleTests | None = None

    @property
    def id(self) -> str:
        """Unique in its data set."""
        return self.example.id

    @property
    def reference(self) -> str:
        """The right answer, or one of them."""
        return self.example.code if isinstance(self.example, IntentExample) else self.example.middle

    @property
    def question(self) -> str:
        """For people; a hole is marked."""
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
    """``test``, or what was taken of it."""
    items: tuple[Sample, ...]
    pool: tuple[IntentExample | FillExample, ...]
    """Training examples; none of them is an item."""
    max_tokens: int
    """Longest answer."""
    licence: str
    provenance: str
    notes: tuple[str, ...] = ()
    root: Path | None = None
    """The repository, where items are holes in its files."""

    @property
    def digest(self) -> str:
        """sha256 of the questions, references and tests in their order."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(msgspec.json.encode(_asked(item)))
        return digest.hexdigest()

    def first(self, count: int) -> SampleSet:
        """The same with its first ``count`` items only."""
        if count >= len(self.items):
            return self
        return replace(self, items=self.items[:count], part=f"first {count} of {self.part}")


def _asked(item: Sample) -> object:
    """All that makes an item what it is: how long its tests take and where they lie does not."""
    if not isinstance(tests := item.tests, RepositoryTests):
        return item
    return item.example, item.group, tests.path, tests.before, tests.after, tests.suite.digest


def groups(items: Sequence[Sample]) -> tuple[str, ...]:
    """The groups there are, in the order of their first item; empty where items are not grouped."""
    return tuple(dict.fromkeys(item.group for item in items if item.group))
