"""A plugin of pytest that remembers which tests passed. Imported only where pytest is; decides nothing.

It also notices when pytest, unittest or the built-in functions are not what they were before the first test. Code that
undoes what it did, or that looks for this object and changes it, goes unnoticed: it runs in the same process.
"""

from __future__ import annotations

import sys
import types
import unittest.case  # noqa: F401  (to be there before code under test is)
from collections.abc import Iterator
from typing import Any

import pytest

_CODE = (types.FunctionType, types.BuiltinFunctionType, type, classmethod, staticmethod, property)
_PLAIN = ("assert", "AssertionError", "Failed:")
"""How the message of a test begins that found something wrong, rather than broke."""


class PassRecorder:
    """Of one run. ``expected`` are the only tests to run, of which the first that does not pass ends it; or all."""

    def __init__(self, expected: frozenset[str] | None) -> None:
        self.collected = 0
        self.files: set[str] = set()
        """Real paths of the files that tests are in; not of those with doctests alone."""
        self.outcome, self.why = "", ""
        """Of the first test that did not pass."""
        self._expected = expected
        self._session: pytest.Session | None = None
        self._called: set[str] = set()
        self._bad: set[str] = set()
        self._modules: dict[str, types.ModuleType] = {}
        self._before: dict[str, object] = {}

    @property
    def passed(self) -> list[str]:
        """Ids of the tests whose every phase passed."""
        return sorted(self._called - self._bad)

    @property
    def changed(self) -> list[str]:
        """What is not as it was before the first of the repository's files was imported, or was not there."""
        after = _tools(self._modules)
        names = self._before.keys() | after.keys()
        return sorted(name for name in names if self._before.get(name) is not after.get(name))

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self) -> None:
        """Installed plugins are there, and nothing of the repository is imported yet."""
        self._modules = _judges()
        self._before = _tools(self._modules)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> Iterator[None]:
        """No workers of pytest-xdist, which are processes."""
        if getattr(config.option, "numprocesses", None):
            config.option.numprocesses = 0
        yield

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """What has to be told when enough is known."""
        self._session = session

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out what is not expected."""
        self.files |= {str(item.path.resolve()) for item in items if type(item).__name__ != "DoctestItem"}
        self.collected = len(items)
        if self._expected is not None:
            others = [item for item in items if item.nodeid not in self._expected]
            items[:] = [item for item in items if item.nodeid in self._expected]
            config.hook.pytest_deselected(items=others)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that could not be imported."""
        if report.failed:
            self._note(report.longrepr, raised=True)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test."""
        if report.failed:
            self._bad.add(report.nodeid)
            self._note(report.longrepr, raised=False)
            if self._expected is not None and self._session is not None:
                self._session.shouldstop = "one is enough"
        elif report.when == "call" and report.passed:
            self._called.add(report.nodeid)

    def _note(self, longrepr: Any, *, raised: bool) -> None:
        if self.outcome:
            return
        crash = getattr(longrepr, "reprcrash", None)
        lines = (crash.message if crash else str(longrepr)).strip().splitlines() or [""]
        self.why = (lines[0] if crash else lines[-1])[:300]
        self.outcome = "raised" if raised or not self.why.startswith(_PLAIN) else "failed"


def _judges() -> dict[str, types.ModuleType]:
    """The modules that decide whether a test passes."""
    names = {"builtins", "unittest.case", "pytest"}
    return {
        name: module
        for name, module in sys.modules.items()
        if name in names or name.startswith(("_pytest.", "pluggy."))
    }


def _tools(modules: dict[str, types.ModuleType]) -> dict[str, object]:
    """All their functions and classes, and the classes' own, by name."""
    found: dict[str, object] = {}
    for name, module in modules.items():
        for attribute, value in list(vars(module).items()):
            if isinstance(value, _CODE):
                found[f"{name}.{attribute}"] = value
            if isinstance(value, type) and value.__module__ == name:
                for inner, code in list(vars(value).items()):
                    if isinstance(code, _CODE):
                        found[f"{name}.{attribute}.{inner}"] = code
    return found
