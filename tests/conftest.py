"""Fixtures every part shares: the real model, and an adapter trained against it."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

from peft_core.paths import Paths
from peft_core.settings import resolve
from peft_daemon.engines.waiting import set_wait_policy
from support.tiny_adapter import TinyAdapter, trained_tiny_adapter

# Before any test loads torch: the product's programs do the same. Of several workers each has one core.
set_wait_policy("passive")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes is not what these tests are about; in CI the examples are the same every time.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.register_profile("long", deadline=None, max_examples=3000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


@pytest.fixture(autouse=True)
def _environment_as_it_was() -> Generator[None]:
    """What a command called in this process leaves in its environment must not decide what a later test sees."""
    before = dict(os.environ)
    yield
    pytest_s = {"PYTEST_CURRENT_TEST"}
    for name in os.environ.keys() - before.keys() - pytest_s:
        del os.environ[name]
    os.environ.update({name: before[name] for name in before.keys() - pytest_s})


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder of base models, shared by all tests and runs: fetched once, verified always."""
    given = os.environ.get("PEFT_DAEMON_MODELS_DIR")
    return Path(given) if given else Paths.from_environment({}).models


@pytest.fixture(scope="session")
def model_file(models_dir: Path) -> Path:
    """The default model; its absence fails the tests that need it, they never skip."""
    from peft_daemon.models import catalogue
    from peft_daemon.models.store import open_store

    settings = resolve(environ={"PEFT_DAEMON_MODELS_DIR": str(models_dir)}).settings
    store = open_store(settings, Paths.from_environment())
    entry = catalogue.get(settings.model)
    if not store.is_installed(entry):
        pytest.fail(f"the default model is missing: run `peft-daemon models pull {entry.id}`")
    return store.path(entry)


@pytest.fixture(scope="session")
def tiny_adapter(model_file: Path) -> TinyAdapter:
    """A LoRA trained against the default model, once per machine: it takes a minute or two."""
    return trained_tiny_adapter(model_file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: a broken unit should not wait for the model.

    Those with a browser come last of all: its event loop runs until the session ends, beside which there is no other.
    """
    order = ("vscode", "unit", "fuzz", "integration", "snapshots", "e2e", "long")

    def stage(item: pytest.Item) -> int:
        found = next((n for n, part in enumerate(order) if part in item.path.parts), len(order))
        return found or len(order)

    items.sort(key=stage)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI nothing may be skipped: a missing tool is a failure."""
    report = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where everything must run: {report.longrepr}"
    return report
