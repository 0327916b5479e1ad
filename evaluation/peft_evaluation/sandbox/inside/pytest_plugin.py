"""A plugin of pytest that records which tests passed. Imported only where pytest is installed.

It also detects changes of pytest, unittest and built-in functions since before the first test. It cannot detect code
that undoes its changes, or that finds this object and changes it, as all of that runs in the same process.
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
"""How the message of a test begins if an assertion failed; other messages are exceptions."""


class PassRecorder:
    """Records one run of pytest.

    With ``expected``, only these tests run, and the first failure ends the run.
    """

    def __init__(self, expected: frozenset[str] | None) -> None:
        self.collected = 0
        self.files: set[str] = set()
        """Real paths of the files with tests, except files that have only doctests."""
        self.outcome, self.why = "", ""
        """Outcome and message of the first test that did not pass."""
        self._expected = expected
        self._session: pytest.Session | None = None
        self._called: set[str] = set()
        self._bad: set[str] = set()
        self._modules: dict[str, types.ModuleType] = {}
        self._before: dict[str, object] = {}

    @property
    def passed(self) -> list[str]:
        """Ids of the tests that passed, including setup and teardown."""
        return sorted(self._called - self._bad)

    @property
    def changed(self) -> list[str]:
        """Names of functions and classes that differ from before the first import of the repository's files."""
        after = _functions(self._modules)
        names = self._before.keys() | after.keys()
        return sorted(name for name in names if self._before.get(name) is not after.get(name))

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self) -> None:
        """Remember the functions: plugins are loaded now, and no file of the repository is imported yet."""
        self._modules = _judging_modules()
        self._before = _functions(self._modules)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> Iterator[None]:
        """Switch off the workers of pytest-xdist, which are processes of their own."""
        if getattr(config.option, "numprocesses", None):
            config.option.numprocesses = 0
        yield

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Remember the session, to stop it at the first failure."""
        self._session = session

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Deselect the tests that are not expected."""
        self.files |= {str(item.path.resolve()) for item in items if type(item).__name__ != "DoctestItem"}
        self.collected = len(items)
        if self._expected is not None:
            others = [item for item in items if item.nodeid not in self._expected]
            items[:] = [item for item in items if item.nodeid in self._expected]
            config.hook.pytest_deselected(items=others)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that could not be imported."""
        if report.failed:
            self._note(report.longrepr, raised=True)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the result of one phase of a test."""
        if report.failed:
            self._bad.add(report.nodeid)
            self._note(report.longrepr, raised=False)
            if self._expected is not None and self._session is not None:
                self._session.shouldstop = "a test failed"
        elif report.when == "call" and report.passed:
            self._called.add(report.nodeid)

    def _note(self, longrepr: Any, *, raised: bool) -> None:
        if self.outcome:
            return
        crash = getattr(longrepr, "reprcrash", None)
        lines = (crash.message if crash else str(longrepr)).strip().splitlines() or [""]
        self.why = (lines[0] if crash else lines[-1])[:300]
        self.outcome = "raised" if raised or not self.why.startswith(_PLAIN) else "failed"


def _judging_modules() -> dict[str, types.ModuleType]:
    """Return the modules that decide whether a test passes."""
    names = {"builtins", "unittest.case", "pytest"}
    return {
        name: module
        for name, module in sys.modules.items()
        if name in names or name.startswith(("_pytest.", "pluggy."))
    }


def _functions(modules: dict[str, types.ModuleType]) -> dict[str, object]:
    """Return all functions, classes and methods of ``modules``, by name."""
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
